"""Transcribes every WAV file that appears in a folder, into a text file beside it.

    python3 watch_folder.py whisper-base.svb recordings

Needs the `sottovoce` runtime and a bundle, and nothing else.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import sottovoce
from sottovoce.formats import FORMATS, render

POLL_SECONDS = 2.0  # between two looks; a file whose size stays the same for as long is complete


def main() -> int:
    """Watches until it is stopped; with --once does what is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", help="what `sottovoce compile` made")
    parser.add_argument("folder", type=Path, help="where recordings are dropped")
    parser.add_argument("--format", choices=tuple(FORMATS), default="txt")
    parser.add_argument("--language", metavar="xx", help="found out if not given")
    parser.add_argument("--once", action="store_true", help="do what is there, and end")
    args = parser.parse_args()
    if not args.folder.is_dir():
        parser.error(f"{args.folder} is not a folder; create it first")
    transcriber = sottovoce.Transcriber(args.bundle)
    try:
        transcriber.load()
    except sottovoce.SottovoceError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    failed: dict[Path, int] = {}  # size when it failed: it is tried again when that changes
    while True:
        for wav in waiting(args.folder, args.format, failed):
            try:
                transcribe(transcriber, wav, args.format, args.language)
            except (sottovoce.SottovoceError, OSError) as error:
                failed[wav] = wav.stat().st_size if wav.exists() else -1
                print(error if str(wav) in str(error) else f"{wav}: {error}", file=sys.stderr, flush=True)
        if args.once:
            return 1 if failed else 0


def waiting(folder: Path, suffix: str, failed: dict[Path, int]) -> Iterator[Path]:
    """Recordings without their text that have stopped growing, after a moment to see whether they have."""
    before = {
        wav: wav.stat().st_size for wav in sorted(folder.glob("*.wav")) if not wav.with_suffix(f".{suffix}").exists()
    }
    time.sleep(POLL_SECONDS)
    for wav, size in before.items():
        if wav.exists() and wav.stat().st_size == size != failed.get(wav):
            yield wav


def transcribe(transcriber: sottovoce.Transcriber, wav: Path, suffix: str, language: str | None) -> None:
    """Writes the text under a hidden name and moves it into place, so that nobody reads half of one."""
    started = time.monotonic()
    segments, info = transcriber.transcribe(wav, language=language)
    part = wav.with_name(f".{wav.stem}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.writelines(render(suffix, segments, info))
        os.replace(part, wav.with_suffix(f".{suffix}"))
    finally:
        part.unlink(missing_ok=True)
    took = time.monotonic() - started
    print(f"{wav.name}: {info.duration:.0f} s of {info.language} in {took:.1f} s", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
