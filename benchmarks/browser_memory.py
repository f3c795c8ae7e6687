"""What a bundle takes in a browser: the page of examples/browser in Chromium, beside what the compiler predicts of it.

    python benchmarks/browser_memory.py --work drafts                  all cases
    python benchmarks/browser_memory.py --work drafts --cases 'base'   those whose name has a word; the rest stays

Figures are the highest resident size so far of the renderer, the process that a page has: with the page alone, once the
bundle is open, and after each use of it in turn. Every repetition has a browser of its own. Needs Chromium and
examples/browser/vendor (its README). Writes results/browser-memory.json and .md. Linux only (/proc).
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import machine
from memory_cases import SMOLLM2, Case, draft, predicted

from sottovoce.bench_chat import TEXT

EXAMPLE = Path(__file__).parents[1] / "examples" / "browser"
if str(EXAMPLE / "tools") not in sys.path:
    sys.path.append(str(EXAMPLE / "tools"))

from bench import heard, opened_in, serving  # noqa: E402
from chromium import Page, open_page  # noqa: E402

RESULTS = Path(__file__).parent / "results"
ANSWER_TOKENS = 16
MEGABYTE = 1e6
SECONDS_BETWEEN = 0.5
TOKENS_OF_TEXT = 235  # in the vocabulary of the cases; the template takes a few more
MOST = 5 / 6  # of the context is filled: the page keeps some of it for the answer
CASES = (
    *(Case("whisper-tiny.en", "onnx", one, fitted=True, target="browser") for one in ("int8", "fp32")),
    Case("whisper-base", "onnx", "int8", fitted=True, target="browser"),
    Case(SMOLLM2, "onnx", "int4", fitted=True, target="browser"),
    *(Case(source, "onnx", "int4", fitted=False, target="browser") for source in ("whisper-tiny.en", "whisper-base")),
    Case("random whisper-small", "onnx", "int8", fitted=False, target="browser"),
    Case(SMOLLM2, "onnx", "int8", fitted=False, target="browser"),
)


def main(arguments: Sequence[str]) -> None:
    """Measure the wanted cases, and write what is known of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", required=True, type=Path, metavar="DIR", help="where drafts are made, and kept")
    parser.add_argument("--cases", default="", metavar="WORD", help="measure only cases whose name has this word")
    parser.add_argument("--repetitions", type=int, default=3, help="browsers for each case (default %(default)s)")
    parser.add_argument("--predict", action="store_true", help="measure nothing: predict anew what was measured before")
    given = parser.parse_args(arguments)
    given.work.mkdir(parents=True, exist_ok=True)
    if given.predict:
        record({}, known()["machine"])
        return
    with serving() as site:
        for case in CASES:
            if given.cases in case.name:
                bundle = draft(case, given.work)
                runs = [dict(measured(site, case, bundle, given.work)) for _ in range(given.repetitions)]
                size = round(bundle.stat().st_size / MEGABYTE, 1)
                record({case.name: {"fitted": case.fitted, "bundle_mb": size, "runs": runs}}, about())


def measured(site: str, case: Case, bundle: Path, work: Path) -> Iterator[tuple[str, float]]:
    """MB of the renderer of a fresh browser after each stage, by the names that the plan's uses have."""
    with ExitStack() as stack:
        profile = stack.enter_context(tempfile.TemporaryDirectory())
        page = stack.enter_context(open_page(Path(profile)))
        watch = stack.enter_context(Watch(Path(profile)))
        page.go(site)
        page.wait("document.querySelector('#offline').textContent.startsWith('Works')", 120)
        yield "page", watch.most_mb
        task = "speech" if case.is_speech else "chat"
        opened_in(page, task, bundle)
        yield "opened", watch.most_mb
        for use in predicted(case).uses:
            if case.is_speech:
                heard(page, work / ("short.wav" if use.name.startswith("5 ") else "piece.wav"))
            else:
                answer(page, int(re.findall(r"([0-9]+) tokens", use.name)[0]))
            yield use.name, watch.most_mb


def answer(page: Page, tokens: int) -> None:
    """One greedy answer to a message, both together of so many tokens but for what the page keeps free."""
    room = round(MOST * tokens) - ANSWER_TOKENS
    message = (TEXT * (room // TOKENS_OF_TEXT + 1))[: len(TEXT) * room // TOKENS_OF_TEXT]
    page.evaluate(
        f"""document.querySelector('#clear').click()
            for (const [id, value] of [['temperature', 0], ['max-tokens', {ANSWER_TOKENS}],
                                       ['message', {json.dumps(message)}]])
              document.querySelector(`#${{id}}`).value = value
            document.querySelector('#composer').requestSubmit()"""
    )
    page.wait("document.querySelector('#log small') !== null || !document.querySelector('#chat-error').hidden", 900)
    if error := page.evaluate("document.querySelector('#chat-error').textContent"):
        raise SystemExit(f"{tokens} tokens: {error}")


class Watch:
    """The highest resident size of the page's renderer while this is open. It is looked at all the time, because
    Chromium sets the counter that the system keeps of it back now and then."""

    def __init__(self, profile: Path) -> None:
        self._profile, self._ended, self._most = profile, threading.Event(), 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def most_mb(self) -> float:
        """MB of 10^6 bytes, to a tenth."""
        self._look()
        return round(self._most / MEGABYTE, 1)

    def _run(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN):
            self._look()

    def _look(self) -> None:
        self._most = max(self._most, renderer_bytes(self._profile))


def renderer_bytes(profile: Path) -> int:
    """The highest resident size that the system knows of: of the renderers of the browser that keeps its things in
    `profile`, the one that took most."""
    found = [0]
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                command = (process / "cmdline").read_bytes()
                status = (process / "status").read_text()
            except OSError:  # it has ended meanwhile
                continue
            if b"--type=renderer" in command and str(profile).encode() in command:
                found += [int(size) * 1024 for size in re.findall(r"VmHWM:\s+(\d+)", status)]
    return max(found)


def about() -> Mapping[str, Any]:
    """The machine, and the versions of the browser and of ONNX Runtime Web."""
    with tempfile.TemporaryDirectory() as profile, open_page(Path(profile)) as page:
        browser = page.call("Browser.getVersion")["product"]
    package = json.loads((EXAMPLE / "package.json").read_text())
    web = package["dependencies"]["onnxruntime-web"]
    return {**machine.describe(), "date": machine.today(), "browser": browser, "onnxruntime-web": web}


def known() -> dict[str, Any]:
    """What was measured before."""
    file = RESULTS / "browser-memory.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"cases": {}}
    return found


def record(found: Mapping[str, Any], where: Mapping[str, Any]) -> None:
    """Add to what is known, with what the compiler predicts of it now, and write it."""
    cases = {**known()["cases"], **found}
    for case in CASES:
        if case.name in cases:
            plan = predicted(case)
            uses = {use.name: round((plan.imported + plan.peak(use)) / MEGABYTE, 1) for use in plan.uses}
            cases[case.name]["predicted"] = {"page": round(plan.imported / MEGABYTE, 1), **uses}
    order = [case.name for case in CASES]
    result = {"machine": dict(where), "cases": {name: cases[name] for name in order if name in cases}}
    (RESULTS / "browser-memory.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "browser-memory.md").write_text(markdown(result))


def markdown(result: Mapping[str, Any]) -> str:
    """One line for each stage of each bundle."""
    where = result["machine"]
    lines = [
        "# Memory in a browser, predicted and measured",
        "",
        f"`python benchmarks/browser_memory.py --work drafts`, {where['date']}, {where['cpu']}, {where['cores']} cores,"
        f" {where['system']}, {where['browser']} headless, onnxruntime-web {where['onnxruntime-web']}.",
        "",
        "MB (10^6 bytes): the highest resident size of the page's renderer so far, the browser's own code among it,"
        " after each stage in turn; median and range of fresh browsers. A chat's context is filled to five sixths,"
        " which is what the page lets a message have. Constants of the model were fitted to the bundles marked *; the"
        " others were held out.",
        "",
        "| bundle | MB on disk | after | predicted | measured | range | error |",
        "|---|---|---|---|---|---|---|",
        *rows(result["cases"]),
        "",
    ]
    return "\n".join(lines)


def rows(cases: Mapping[str, Any]) -> Iterator[str]:
    """Of the table; stages of which nothing is predicted have no error."""
    for name, case in cases.items():
        for stage in case["runs"][0]:
            took = [run[stage] for run in case["runs"]]
            middle, said = statistics.median(took), case["predicted"].get(stage)
            figures = ["", ""] if said is None else [f"{said:.0f}", f"{said / middle - 1:+.1%}"]
            cells = [f"{name}{'*' if case['fitted'] else ''}", f"{case['bundle_mb']:.0f}", stage, figures[0]]
            cells += [f"{middle:.0f}", f"{min(took):.0f} to {max(took):.0f}", figures[1]]
            yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main(sys.argv[1:])
