"""LiteRT beside the other engines, on the same models: bundles of one source take turns, round after round.

    python benchmarks/litert.py --data speech/manifest.jsonl \\
        --speech whisper-tiny.en onnx=tiny.svb litert=tiny-litert.svb --chat smollm2 onnx=onnx.svb litert=litert.svb

The first bundle of each model is what the others are compared with. Times are wall seconds; a ratio is the median of
the rounds' ratios, the other's time over this one's: above 1 is faster. Load and memory are those of `sottovoce bench`,
in a process of its own each time.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
import quality
import timing
from data import Recordings
from peers.sottovoce import Sottovoce
from table import ground

from sottovoce.bench import measure
from sottovoce.bundle import open_bundle
from sottovoce.engines.chat import ChatEngine
from sottovoce.engines.opening import chat_engine

Json = dict[str, Any]
Bundles = Mapping[str, Path]  # label -> bundle; the first is the one to compare with
PROMPT, ANSWER, CONTEXT = 256, 64, 2048  # tokens


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for."""
    options = _parser().parse_args(arguments)
    result: Json = {
        "date": machine.today(),
        "command": machine.command_line("benchmarks/litert.py", arguments),
        "machine": machine.describe(),
        "threads": options.threads,
        "speech": {},
        "chat": {},
    }
    recordings = Recordings(options.data) if options.data else None
    for name, *given in options.speech:
        assert recordings is not None, "--speech needs --data"
        print(f"{name}: speech", file=sys.stderr, flush=True)
        result["speech"][name] = speech(_labelled(given), recordings, options)
    for name, *given in options.chat:
        print(f"{name}: chat", file=sys.stderr, flush=True)
        result["chat"][name] = chat(_labelled(given), options)
    page = render(result)
    options.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    options.output.with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)
    return 0


def speech(bundles: Bundles, recordings: Recordings, options: argparse.Namespace) -> Json:
    """Seconds of each round by what was timed, word errors, and what a process costs."""
    systems = {label: Sottovoce(path, options.threads) for label, path in bundles.items()}
    for system in systems.values():
        system.load()
    clip, long = recordings.named(options.clip), recordings.long()
    for system in systems.values():
        system.transcribe(clip.samples, "en")  # not counted
    rest, found = options.rest, {label: {} for label in bundles}
    for what, heard, times in (("clip", clip, options.repetitions), ("long", long, options.long_repetitions)):
        runs = timing.rounds(systems, lambda system, h=heard: system.transcribe(h.samples, "en"), times, rest)
        _note(found, what, {label: [seconds for seconds, _ in made] for label, made in runs.items()})
    parts = timing.rounds(systems, lambda system: system.parts(clip.samples, 64), options.repetitions, rest)
    for part in ("encoder_s", "token_s"):
        seconds = {label: [getattr(one, part) for _, one in made] for label, made in parts.items()}
        _note(found, part.removesuffix("_s"), seconds)
    for label, system in systems.items():
        found[label]["errors"] = quality.score(system, recordings.read_english()).to_json()
    _add_costs(found, bundles, str(clip.clip.file), options)
    return found


def chat(bundles: Bundles, options: argparse.Namespace) -> Json:
    """Seconds of each round for a prompt of `PROMPT` tokens and for each of `ANSWER` tokens after it."""
    engines = {label: chat_engine(open_bundle(path), options.threads, CONTEXT) for label, path in bundles.items()}
    text = "Once upon a time there was a small village by the sea, where people lived from fishing. " * 40
    first = next(iter(engines.values()))
    tokens = first.vocabulary.encode(text, special=False)[:PROMPT]
    found: Json = {label: {} for label in bundles}
    for engine in engines.values():
        answered(engine, tokens)  # not counted
    runs: dict[str, list[tuple[float, float]]] = {label: [] for label in engines}
    for _ in range(options.repetitions):
        for label, engine in engines.items():
            time.sleep(options.rest)
            runs[label].append(answered(engine, tokens))
    for at, what in enumerate(("prompt", "token")):
        _note(found, what, {label: [one[at] for one in made] for label, made in runs.items()})
    for engine in engines.values():
        engine.close()
    _add_costs(found, bundles, None, options)
    return found


def answered(engine: ChatEngine, tokens: Sequence[int]) -> tuple[float, float]:
    """Seconds of the prompt, and of one token after it, each the likeliest."""
    engine.truncate(0)
    began = time.perf_counter()
    token = int(engine.evaluate(tokens)[-1].argmax())
    prompted = time.perf_counter()
    for _ in range(ANSWER):
        token = int(np.argmax(engine.evaluate([token])[-1]))
    return prompted - began, (time.perf_counter() - prompted) / ANSWER


def _note(found: Json, what: str, seconds: Mapping[str, Sequence[float]]) -> None:
    """Keep the rounds of every bundle with its ratio to the first's."""
    base = next(iter(seconds.values()))
    for label, mine in seconds.items():
        ratio = statistics.median(theirs / own for theirs, own in zip(base, mine, strict=True))
        found[label][what] = {"median_s": statistics.median(mine), "ratio": ratio, "seconds": list(mine)}


def _add_costs(found: Json, bundles: Bundles, audio: str | None, options: argparse.Namespace) -> None:
    """Load and memory, each the median of processes of their own, which take turns."""
    runs = {label: list[Any]() for label in bundles}
    for _ in range(options.processes):
        for label, path in bundles.items():
            runs[label].append(measure(path, audio, 1, options.threads, brief=True))
    for label, made in runs.items():
        found[label] |= {
            "load_s": statistics.median(one.load_s for one in made),
            "peak_mb": statistics.median(one.peak_mb for one in made),
            "process_mb": statistics.median(one.process_mb for one in made),
            "bytes": made[0].bytes,
        }


# -- the page ----------------------------------------------------------------------------------------------------------


def render(result: Json) -> str:
    """The result as Markdown."""
    lines = ground("LiteRT and other engines", result)
    lines += ["Ratios are the first row's time over a row's own, median of rounds: above 1x is faster."]
    seconds: dict[str, tuple[str, Callable[[Json], str]]]
    for name, rows in result["speech"].items():
        seconds = {"clip": ("short clip, ms", _ms), "long": ("long recording, s", _seconds)}
        seconds |= {"encoder": ("encoder, ms", _ms), "token": ("token, ms", _ms)}
        lines += ["", f"## {name}", "", *_table(rows, seconds)]
    for name, rows in result["chat"].items():
        seconds = {"prompt": ("prompt, tokens/s", _prompt_rate), "token": ("answer, tokens/s", _rate)}
        lines += ["", f"## {name}", "", *_table(rows, seconds)]
    return "\n".join([*lines, ""])


def _table(rows: Json, seconds: Mapping[str, tuple[str, Callable[[Json], str]]]) -> list[str]:
    titles = ["", *(title for title, _ in seconds.values())]
    scored = any("errors" in row for row in rows.values())
    titles += ["word errors"] if scored else []
    titles += ["load, ms", "peak above imports, MB", "whole process, MB", "disk, MB"]
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for label, row in rows.items():
        cells = [label, *(f"{show(row[what])} ({row[what]['ratio']:.2f}x)" for what, (_, show) in seconds.items())]
        if scored:
            errors = row["errors"]
            cells.append(f"{errors['rate']:.1%} of {errors['reference']}")
        cells += [f"{1e3 * row['load_s']:.0f}", f"{row['peak_mb']:.0f}", f"{row['process_mb']:.0f}"]
        lines.append(f"| {' | '.join([*cells, format(row['bytes'] / 1e6, '.1f')])} |")
    return lines


def _ms(timed: Json) -> str:
    return f"{1e3 * timed['median_s']:.3g}"


def _seconds(timed: Json) -> str:
    return f"{timed['median_s']:.3g}"


def _rate(timed: Json) -> str:
    return f"{1 / timed['median_s']:.4g}"


def _prompt_rate(timed: Json) -> str:
    return f"{PROMPT / timed['median_s']:.0f}"


def _labelled(given: Sequence[str]) -> Bundles:
    return {label: Path(path) for label, _, path in (one.partition("=") for one in given)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, help="manifest of the recordings, JSON lines; --speech needs it")
    for task in ("speech", "chat"):
        add(
            f"--{task}",
            nargs="+",
            action="append",
            default=[],
            metavar="NAME LABEL=BUNDLE",
            help="a model's name and its bundles; may be repeated",
        )
    add("--clip", default="jfk.flac", help="the short clip, by its name in the manifest (default %(default)s)")
    add("--threads", type=int, default=2)
    add("--repetitions", type=int, default=7)
    add("--long-repetitions", type=int, default=3)
    add("--processes", type=int, default=3, help="to measure load and memory in (default %(default)s)")
    add("--rest", type=float, default=0.3, help="seconds of pause before each measurement (default %(default)s)")
    add("--output", type=Path, default=Path(__file__).parent / "results" / "litert", help="without suffix")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
