"""How fast the page is in Chromium, and whether its text is the device's: beside the Python runtime, taking turns.

    python examples/browser/tools/bench.py --speech whisper-tiny.en.svb --clip jfk.flac --chat smollm2.svb --output NAME

`--data MANIFEST.jsonl` (JSON lines with `file` and `text`) adds the comparison of transcripts: how many clips have the
same text and the same words in the browser and on the device; and, because rounding alone moves a comma, the same for
the device against itself on samples that differ in their last bit. Writes NAME.json and NAME.md.
"""

import argparse
import functools
import http.server
import json
import os
import platform
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from chromium import Page, open_page

import sottovoce
from sottovoce.audio import load_audio

EXAMPLE = Path(__file__).parents[1]
QUESTION = "Write a short story about a fox who learns to swim."
ANSWER_TOKENS = 64
SPEECH_NOTE = "document.querySelector('#speech-note').textContent"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(EXAMPLE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def opened_in(page: Page, task: str, bundle: Path) -> float:
    """Seconds that opening the bundle took, its checksums among them."""
    page.evaluate(f"document.querySelector('#tab-{task}').click()")
    page.wait(f"document.querySelector('#{task}-bundle') !== null")
    page.choose(f"#{task}-bundle", bundle)
    said = page.wait(f"document.querySelector('#{task}-model').innerText.match(/opened in ([0-9.]+) s/)?.[1]", 300)
    return float(said)


def heard(page: Page, clip: Path) -> tuple[str, float]:
    """The page's transcript, and seconds from choosing the file to the whole text, decoding included."""
    page.evaluate("document.querySelector('#speech-note').textContent = ''")
    began = time.perf_counter()
    page.choose("#audio-file", clip)
    page.wait(f"{SPEECH_NOTE}.includes('heard in') || !document.querySelector('#speech-error').hidden", 600)
    seconds = time.perf_counter() - began
    if error := page.evaluate("document.querySelector('#speech-error').textContent"):
        raise SystemExit(f"{clip}: {error}")
    parts = page.evaluate("[...document.querySelectorAll('#segments span')].map((one) => one.textContent)")
    return " ".join(parts), seconds


def of_device(asr: sottovoce.Transcriber, audio: Any) -> tuple[str, float]:
    began = time.perf_counter()
    segments = list(asr.transcribe(audio)[0])
    return " ".join(one.text.strip() for one in segments), time.perf_counter() - began


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def measure_speech(site: str, bundle: Path, clip: Path, threads: int, repetitions: int) -> dict[str, Any]:
    """The page and the runtime on one clip in turn; the page's first time is not in the medians but noted."""
    with tempfile.TemporaryDirectory() as profile, open_page(Path(profile)) as page:
        page.go(site)
        if threads > 1:
            isolate(page)
        load = opened_in(page, "speech", bundle)
        asr = sottovoce.Transcriber(bundle, threads=threads)
        asr.load()
        text, first = heard(page, clip)
        wanted, _ = of_device(asr, clip)
        turns = [(heard(page, clip)[1], of_device(asr, clip)[1]) for _ in range(repetitions)]
    browser, device = (statistics.median(column) for column in zip(*turns, strict=True))
    return {
        **{"threads": threads, "load_s": load, "first_s": first, "browser_s": browser, "device_s": device},
        **{"ratio": browser / device, "text": text, "device_text": wanted},
        **{"same_text": text == wanted, "same_words": words(text) == words(wanted), "turns": turns},
    }


def isolate(page: Page) -> None:
    """The second visit, in which the service worker allows threads."""
    page.wait("document.querySelector('#offline').textContent.startsWith('Works')", 120)
    page.call("Page.reload")
    page.wait("document.readyState === 'complete' && globalThis.crossOriginIsolated")


def measure_chat(site: str, bundle: Path, threads: int) -> dict[str, Any]:
    """One greedy answer in the page and on the device."""
    with tempfile.TemporaryDirectory() as profile, open_page(Path(profile)) as page:
        page.go(site)
        if threads > 1:
            isolate(page)
        load = opened_in(page, "chat", bundle)
        rates = []
        for _ in range(2):  # the first compiles what the second runs
            page.evaluate(
                f"""document.querySelector('#clear').click()
                    for (const [id, value] of [['temperature', 0], ['max-tokens', {ANSWER_TOKENS}],
                                               ['message', {json.dumps(QUESTION)}]])
                      document.querySelector(`#${{id}}`).value = value
                    document.querySelector('#composer').requestSubmit()"""
            )
            page.wait("document.querySelector('#log small') !== null", 600)
            note = page.evaluate("document.querySelector('#log small').textContent")
            count, whole, first = map(float, re.findall(r"[0-9.]+", note)[:3])
            rates.append((count - 1) / (whole - first))
        text = page.evaluate("document.querySelector('#log article:last-child').firstChild.textContent")
    llm = sottovoce.Chat(bundle, threads=threads)
    stamps = [
        time.perf_counter()
        for delta in llm.stream([{"role": "user", "content": QUESTION}], temperature=0.0, max_tokens=ANSWER_TOKENS)
    ]
    device = (len(stamps) - 1) / (stamps[-1] - stamps[0])
    answer = llm.chat([{"role": "user", "content": QUESTION}], temperature=0.0, max_tokens=ANSWER_TOKENS)
    return {
        **{"threads": threads, "load_s": load, "first_s": first, "tokens_per_s": rates[-1]},
        **{"device_tokens_per_s": device, "text": text, "device_text": answer.text, "same_text": text == answer.text},
    }


def compare(site: str, bundle: Path, data: Path, most: int) -> dict[str, Any]:
    """Transcripts of many clips: the page's and the device's, and the device's of samples changed in their last bit."""
    rows = [json.loads(line) for line in data.read_text().splitlines() if line.strip()]
    asr = sottovoce.Transcriber(bundle, threads=1)
    known = [row for row in rows if row.get("language") in asr.languages]
    clips = [data.parent / row["file"] for row in known][:most]
    found = []
    with tempfile.TemporaryDirectory() as profile, open_page(Path(profile)) as page:
        page.go(site)
        opened_in(page, "speech", bundle)
        for clip in clips:
            samples = load_audio(clip)
            changed = np.nextafter(samples, np.float32(np.inf), dtype=np.float32)
            texts = {"browser": heard(page, clip)[0], "device": of_device(asr, samples)[0]}
            texts["last_bit"] = of_device(asr, changed)[0]
            found.append({"clip": clip.name, **texts})
    return {"clips": found, **{other: agreement(found, other) for other in ("browser", "last_bit")}}


def agreement(found: list[dict[str, str]], other: str) -> dict[str, int]:
    same_words = [words(one["device"]) == words(one[other]) for one in found]
    return {
        "clips": len(found),
        "same_text": sum(one["device"] == one[other] for one in found),
        "same_words": sum(same_words),
        "words": sum(len(words(one["device"])) for one in found),
        "words_that_differ": sum(
            edits(words(one["device"]), words(one[other]))
            for one, same in zip(found, same_words, strict=True)
            if not same
        ),
    }


def edits(left: list[str], right: list[str]) -> int:
    """Insertions, deletions and substitutions (Levenshtein 1966)."""
    row = list(range(len(right) + 1))
    for i, one in enumerate(left, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(right, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (one != other))
    return row[-1]


def load() -> dict[str, float]:
    """What else the machine does, just before."""
    return {"load_average": os.getloadavg()[0]}


def machine() -> dict[str, Any]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    with tempfile.TemporaryDirectory() as profile, open_page(Path(profile)) as page:
        browser = page.call("Browser.getVersion")["product"]
    package = json.loads((EXAMPLE / "package.json").read_text())
    return {
        **{"processor": model[1] if model else platform.machine(), "cores": os.cpu_count(), "browser": browser},
        **{"onnxruntime-web": package["dependencies"]["onnxruntime-web"], "sottovoce": sottovoce.__version__},
        **{"python": platform.python_version(), "date": str(date.today())},
    }


def table(found: dict[str, Any]) -> str:
    about = found["machine"]
    head: Sequence[str]
    versions = f"{about['browser']}, onnxruntime-web {about['onnxruntime-web']}; Python {about['python']}"
    lines = [
        *("# In the browser, beside the device's runtime", ""),
        f"{about['processor']}, {about['cores']} cores; {versions}; {about['date']}.",
    ]
    if speech := found.get("speech"):
        head = [
            "clip",
            "threads",
            "load average",
            "opening, s",
            "first time, s",
            "later, s",
            "device, s",
            "ratio",
            "same text",
            "same words",
        ]
        lines += rows(head, [speech_row(one) for one in speech])
        lines += ["", "Times of the page are from choosing the file to the whole text. Medians, taking turns."]
    if chat := found.get("chat"):
        head = [
            "chat",
            "threads",
            "load average",
            "opening, s",
            "first token, s",
            "tokens/s",
            "device, tokens/s",
            "same text",
        ]
        lines += rows(head, [chat_row(one) for one in chat])
    if same := found.get("transcripts"):
        names = {"browser": "the page", "last_bit": "the device, samples changed in their last bit"}
        head = ["against the device", "clips", "same text", "same words", "words", "that differ"]
        lines += rows(head, [(names[other], *map(str, same[other].values())) for other in names])
    return "\n".join(lines) + "\n"


def rows(head: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *cells]
    return ["", *(f"| {' | '.join(line)} |" for line in lines)]


def speech_row(one: dict[str, Any]) -> list[str]:
    times = [f"{one[key]:.2f}" for key in ("load_s", "first_s", "browser_s", "device_s")]
    return [
        one["clip"],
        str(one["threads"]),
        f"{one['load_average']:.1f}",
        *times,
        f"{one['ratio']:.1f}x",
        yes(one["same_text"]),
        yes(one["same_words"]),
    ]


def chat_row(one: dict[str, Any]) -> list[str]:
    figures = [f"{one[key]:.1f}" for key in ("load_s", "first_s", "tokens_per_s", "device_tokens_per_s")]
    return [one["bundle"], str(one["threads"]), f"{one['load_average']:.1f}", *figures, yes(one["same_text"])]


def yes(value: bool) -> str:
    return "yes" if value else "no"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, help="a bundle that transcribes")
    parser.add_argument("--clip", type=Path, help="a recording to time")
    parser.add_argument("--chat", type=Path, help="a bundle for onnxruntime that chats")
    parser.add_argument("--data", type=Path, help="recordings to compare transcripts on")
    parser.add_argument("--most", type=int, default=60, help="so many of them at most")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--output", type=Path, required=True, help="NAME of NAME.json and NAME.md; what is there is added to"
    )
    given = parser.parse_args()
    output = given.output.with_suffix(".json")
    found = json.loads(output.read_text()) if output.exists() else {}
    found["machine"] = machine()
    with serving() as site:
        if given.speech and given.clip:
            found["speech"] = [
                {
                    "clip": given.clip.name,
                    **load(),
                    **measure_speech(site, given.speech, given.clip, threads, given.repetitions),
                }
                for threads in given.threads
            ]
        if given.chat:
            found["chat"] = [
                {"bundle": given.chat.stem, **load(), **measure_chat(site, given.chat, threads)}
                for threads in given.threads
            ]
        if given.speech and given.data:
            found["transcripts"] = compare(site, given.speech, given.data, given.most)
    output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    output.with_suffix(".md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    main()
