"""One process of memory.py: imports, then loads bundles and uses each in one way, and says how much that took.

Takes one JSON argument and prints one JSON object; MB are 10^6 bytes, as `sottovoce bench` has them.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sottovoce.bench import MEGABYTE, _chats, megabytes_since, peak_bytes

PUSHED = 0.5  # seconds of audio given to a stream at a time


def run(jobs: Iterable[tuple[str, int | None, str]], work: Path) -> dict[str, float]:
    """MB of the imports, and of everything after them."""
    import sottovoce
    from sottovoce import bench_chat, bench_speech
    from sottovoce.bundle import open_bundle

    jobs = list(jobs)
    for bundle, _, _ in jobs:
        if _chats(bundle):
            from sottovoce.chat import generate, loading  # noqa: F401

            bench_chat._load_engine(bundle)
        else:
            bench_speech.load_engine(open_bundle(bundle).manifest.engine.name)
    makers = [sottovoce.Chat if _chats(bundle) else sottovoce.Transcriber for bundle, _, _ in jobs]
    before = peak_bytes()
    with ExitStack() as stack:
        opened = []
        for make, (bundle, context, kind) in zip(makers, jobs, strict=True):
            options = {} if context is None else {"context": context}
            model: Any = stack.enter_context(make(bundle, **options))
            model.load()
            opened.append((model, kind))
        for model, kind in opened:
            USES[kind](model, work)
        return {"imports_mb": round((before or 0) / MEGABYTE, 1), "peak_mb": megabytes_since(before) or 0.0}


def _bench(chat: Any, work: Path) -> None:
    from sottovoce import bench_chat

    ready = chat._ready
    bench_chat._timed_run(
        ready, bench_chat._tokens(ready, bench_chat.SHORT), bench_chat._tokens(ready, bench_chat.LONG)
    )


def _context(chat: Any, work: Path) -> None:
    """A prompt that fills the context but for one token, and that token."""
    from sottovoce import bench_chat

    ready = chat._ready
    half = bench_chat._tokens(ready, ready.engine.context)
    tokens = (half * 2)[: ready.engine.context - 1]
    ready.prefix.evaluate(tokens)
    ready.prefix.evaluate(tokens[:1])


def _piece(transcriber: Any, work: Path) -> None:
    _transcribed(transcriber, work / "piece.wav")


def _long(transcriber: Any, work: Path) -> None:
    _transcribed(transcriber, work / "long.wav")


def _transcribed(transcriber: Any, file: Path) -> None:
    segments, _ = transcriber.transcribe(file, language="en", temperature=(0.0,))
    for _ in segments:
        pass


def _stream(transcriber: Any, work: Path) -> None:
    from sottovoce.audio import SAMPLE_RATE, load_audio

    def pushed() -> Iterator[Any]:
        samples = load_audio(work / "unbroken.wav")
        step = round(PUSHED * SAMPLE_RATE)
        for start in range(0, samples.size, step):
            yield samples[start : start + step]

    for _ in transcriber.stream(pushed()):
        pass


USES = {"bench": _bench, "context": _context, "long": _long, "piece": _piece, "stream": _stream}

if __name__ == "__main__":
    given, folder = json.loads(sys.argv[1])
    print(json.dumps(run(given, Path(folder))))
