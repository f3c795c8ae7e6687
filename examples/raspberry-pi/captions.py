"""Live captions: what is said near the microphone, on the screen while it is said.

    python3 captions.py whisper-tiny.en.svb
    arecord -q -f S16_LE -r 16000 | python3 captions.py whisper-tiny.en.svb -

Needs the `sottovoce` runtime and a bundle, and for the microphone its extra `mic`.
"""

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TextIO

from hearing import STDIN, open_source, utterances

import sottovoce

CLEAR_LINE, DIM, PLAIN = "\r\x1b[2K", "\x1b[2m", "\x1b[0m"


def main() -> int:
    """Listens until it is stopped, or its input ends."""
    args = parse(sys.argv[1:])
    if args.log is not None and not args.log.is_dir():
        print(f"{args.log} is not a folder; create it first", file=sys.stderr)
        return 2
    try:
        transcriber = sottovoce.Transcriber(args.bundle)
        transcriber.load()
        source = open_source(args.source, args.device)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: source.stop())  # what was said until then is still settled
        options = {"language": args.language} if args.language else {}
        with closing(transcriber.stream(source, **options)) as events:
            show(events, sys.stdout, args.log)
    except sottovoce.SottovoceError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", help="what `sottovoce compile` made")
    parser.add_argument("source", nargs="?", choices=(STDIN,), help="samples from standard input")
    parser.add_argument("--device", metavar="NAME", help="microphone, by number or a part of its name")
    parser.add_argument("--language", metavar="xx", help="found out if not given")
    parser.add_argument("--log", metavar="FOLDER", type=Path, help="also write what is said into a file a day, there")
    return parser.parse_args(arguments)


def show(events: Iterable[sottovoce.Event], out: TextIO, log: Path | None) -> None:
    """Every utterance on a line of its own; on a terminal it grows while it is spoken."""
    grows = out.isatty()
    for text, complete in utterances(events):
        if complete:
            out.write(f"{CLEAR_LINE if grows else ''}{text}\n")
            if log is not None:
                write_log(log, text)
        elif grows:
            room = shutil.get_terminal_size().columns - 1  # the end of a line that is too long is what is new
            out.write(f"{CLEAR_LINE}{DIM}{text[-room:]}{PLAIN}")
        out.flush()


def write_log(folder: Path, text: str) -> None:
    """Appends a line with the time to today's file."""
    with (folder / time.strftime("%Y-%m-%d.txt")).open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%H:%M:%S')} {text}\n")


if __name__ == "__main__":
    sys.exit(main())
