"""`sottovoce listen`: microphone or raw samples in, live text out.

Knows the command line and which source it asks for. Knows nothing of how speech becomes text, nor of what it looks like
(captions.py).
"""

import argparse
import sys
from contextlib import closing
from typing import TYPE_CHECKING

from sottovoce.cli import DONE
from sottovoce.cli.captions import Captions, open_captions, play
from sottovoce.cli.live import given, metered, positive_seconds, stopped_by_ctrl_c
from sottovoce.cli.speech import add_adapter_argument, ready_transcriber
from sottovoce.errors import InputError

if TYPE_CHECKING:
    from sottovoce.streaming.sources import LiveSource

EXAMPLE = """\
  sottovoce listen whisper-base.svb
  sottovoce listen --list-devices
  arecord -q -f S16_LE -r 16000 | sottovoce listen whisper-base.svb -
  ffmpeg -i rtsp://camera/1 -f s16le -ar 16000 -ac 1 - | sottovoce listen whisper-base.svb -
"""

STDIN = "-"
ENCODINGS = ("s16le", "s32le", "f32le")  # of pipe.py, which brings in NumPy
DEFAULT_RATE, DEFAULT_CHANNELS = 16_000, 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", help="what `sottovoce compile` made")
    parser.add_argument(
        "source", metavar="-", nargs="?", help="samples from standard input, raw or WAV, in place of the microphone"
    )
    parser.add_argument("--device", metavar="NAME", help="microphone, by number or a part of its name")
    parser.add_argument("--list-devices", action="store_true", help="print the microphones of this machine")
    parser.add_argument("--rate", metavar="HZ", type=int, help=f"of raw samples (default: {DEFAULT_RATE})")
    parser.add_argument("--channels", metavar="N", type=int, help=f"of raw samples (default: {DEFAULT_CHANNELS})")
    parser.add_argument("--encoding", choices=ENCODINGS, help=f"of raw samples (default: {ENCODINGS[0]})")
    parser.add_argument("--language", metavar="xx", help="code of the language spoken; found out if not given")
    parser.add_argument("--task", choices=("transcribe", "translate"), help="translate: English text from any language")
    parser.add_argument("--initial-prompt", metavar="TEXT", help="names and terms to expect, in the language spoken")
    parser.add_argument(
        "--end-of-speech", metavar="SECONDS", type=positive_seconds, help="silence that ends an utterance"
    )
    parser.add_argument("--step", metavar="SECONDS", type=positive_seconds, help="audio between two decodings")
    parser.add_argument("--no-partials", action="store_true", help="settled text alone, which takes less work")
    parser.add_argument("--words", action="store_true", help="print a line for each word: start, end, word")
    parser.add_argument("--json", action="store_true", help="print JSON lines: an object for each event")
    add_adapter_argument(parser)
    parser.add_argument("--threads", metavar="N", type=int, help="processor threads (default: what suits this machine)")


def run(args: argparse.Namespace) -> int:
    """Exit code 0 when the input ends or Ctrl-C is pressed."""
    if args.list_devices:
        return _list_devices()
    _check(args)
    captions = open_captions(words=args.words, as_json=args.json, meter=True)
    options = given(args, "language", "task", "initial_prompt", "end_of_speech", "step")
    if args.no_partials:
        options["partials"] = False
    with (
        closing(_source(args, captions)) as source,
        ready_transcriber(args) as transcriber,
        stopped_by_ctrl_c(source),
        closing(captions),
        closing(transcriber.stream(metered(source, captions.level), **options)) as events,
    ):
        play(events, captions)
    return DONE


def _check(args: argparse.Namespace) -> None:
    """Raises InputError for options that do not go together."""
    if args.bundle is None:
        raise InputError("the following arguments are required: BUNDLE; see sottovoce listen --help")
    if args.source not in (None, STDIN):
        way = f"sottovoce transcribe {args.bundle} {args.source} --stream"
        raise InputError(f"{args.source}: listen takes the microphone, or - for standard input; a recording: {way}")
    if args.source is None:
        for name in ("rate", "channels", "encoding"):
            if getattr(args, name) is not None:
                raise InputError(f"--{name} is for samples from standard input: sottovoce listen {args.bundle} -")
    elif args.device is not None:
        raise InputError("--device and - (standard input) exclude one another")
    elif sys.stdin.isatty():
        raise InputError("standard input is this terminal; pipe samples into it: arecord -q -f S16_LE -r 16000 | ...")


def _source(args: argparse.Namespace, captions: Captions) -> "LiveSource":
    if args.source == STDIN:
        from sottovoce.streaming.sources.pipe import PipeSource

        rate = DEFAULT_RATE if args.rate is None else args.rate
        channels = DEFAULT_CHANNELS if args.channels is None else args.channels
        return PipeSource(sys.stdin.buffer, rate, channels, args.encoding or ENCODINGS[0])
    from sottovoce.streaming.sources.microphone import Microphone

    device = int(args.device) if args.device is not None and args.device.isdecimal() else args.device
    microphone = Microphone(device, notice=captions.notice)
    if sys.stderr.isatty():
        captions.notice(f"microphone: {microphone.name}; Ctrl-C ends")
    return microphone


def _list_devices() -> int:
    from sottovoce.streaming.sources.microphone import input_devices

    found = input_devices()
    if not found:
        raise InputError("no microphone on this machine")
    for one in found:
        star = "*" if one.is_default else " "
        channels = f"{one.channels} channel{'s' * (one.channels != 1)}"
        print(f"{star} {one.index:>3}  {one.name}  ({channels}, {one.rate} Hz)")
    return DONE
