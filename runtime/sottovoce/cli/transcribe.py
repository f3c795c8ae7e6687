"""`sottovoce transcribe`: recordings in, text out.

Knows the command line, which recordings are decoded together, and what to do when one of many is bad: say so,
go on, and tell in the exit code. Knows nothing of how speech becomes text, nor of where the text goes
(outlet.py).
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sottovoce
from sottovoce.cli import BAD_INPUT, DONE, FAILED
from sottovoce.cli.outlet import STDIN, choose_outlet
from sottovoce.cli.speech import add_adapter_argument, ready_transcriber
from sottovoce.errors import AudioError, EngineError, MissingExtraError
from sottovoce.formats import FORMATS
from sottovoce.types import Segment, TranscriptionInfo

if TYPE_CHECKING:
    from sottovoce.audio import Samples

EXAMPLE = """\
  sottovoce transcribe whisper-base.svb talk.wav
  sottovoce transcribe whisper-base.svb talk.wav --words --format srt > talk.srt
  sottovoce transcribe whisper-base.svb interviews/*.mp3 --language de -o texts
  ffmpeg -i talk.mp4 -f wav - | sottovoce transcribe whisper-base.svb -
  sottovoce transcribe whisper-base.svb talk.wav --stream
"""

OPTIONS = ("language", "task", "beam_size", "batch_size", "initial_prompt", "temperature")
SHORT_SECONDS = 30.0  # recordings up to this long are decoded several at a time
OF_ONE_RECORDING = (
    AudioError,
    MissingExtraError,
    EngineError,
)  # errors that say nothing about the next recording

Result = tuple[Iterable[Segment], TranscriptionInfo]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("bundle", metavar="BUNDLE", help="what `sottovoce compile` made")
    parser.add_argument("audio", metavar="AUDIO", nargs="+", help="recordings; - reads one from standard input")
    parser.add_argument("--words", action="store_true", help="times of words; cues of srt and vtt are cut at words")
    parser.add_argument("--language", metavar="xx", help="code of the language spoken; found out if not given")
    parser.add_argument("--task", choices=("transcribe", "translate"), help="translate: English text from any language")
    parser.add_argument("--format", choices=tuple(FORMATS), default="txt", help="what to write (default: txt)")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help="write DIR/NAME.FORMAT for each recording")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object with the transcripts of all recordings"
    )
    parser.add_argument("--beam-size", metavar="N", type=_positive, help="hypotheses kept while decoding; 1 is greedy")
    parser.add_argument("--batch-size", metavar="N", type=_positive, help="stretches of speech decoded at a time")
    parser.add_argument("--initial-prompt", metavar="TEXT", help="names and terms to expect, in the language spoken")
    parser.add_argument(
        "--temperature",
        metavar="T[,T...]",
        type=_temperatures,
        help="of sampling; later ones are tried when one fails",
    )
    add_adapter_argument(parser)
    parser.add_argument("--no-vad", action="store_true", help="decode silence and noise as well")
    parser.add_argument(
        "--threads", metavar="N", type=_positive, help="processor threads (default: what suits this machine)"
    )
    parser.add_argument("--stream", action="store_true", help="one recording as if it were live, at its own pace")
    parser.add_argument("--no-pace", action="store_true", help="with --stream: as fast as possible")


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 1 when some recordings failed, 2 when all did because of what they are."""
    if args.stream or args.no_pace:
        from sottovoce.cli.transcribe_stream import run_stream

        return run_stream(args)
    outlet = choose_outlet(args.audio, args.format, words=args.words, folder=args.output, as_json=args.json)
    options = _options(args)
    failures: list[Exception] = []

    def fail(source: str, error: Exception) -> None:
        failures.append(error)
        outlet.failed(source, error)

    with ready_transcriber(args) as transcriber:
        batch_size = args.batch_size or sottovoce.TranscribeOptions().batch_size
        for batch in _batches(_loaded(args.audio, fail), 1 if len(args.audio) == 1 else batch_size):
            for source, outcome in _transcribed(transcriber, batch, options):
                try:
                    if isinstance(outcome, Exception):
                        raise outcome
                    outlet.write(source, *outcome)
                except OF_ONE_RECORDING as error:
                    fail(source, error)
    outlet.finish()
    if not failures:
        return DONE
    unusable = all(getattr(error, "exit_code", FAILED) == BAD_INPUT for error in failures)
    return BAD_INPUT if unusable and len(failures) == len(args.audio) else FAILED


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Those of TranscribeOptions that the user set; the rest keep their defaults there."""
    chosen = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    if args.words:
        chosen["word_timestamps"] = True
    if args.no_vad:
        chosen["vad_filter"] = False
    return chosen


def _loaded(sources: Sequence[str], fail: Callable[[str, Exception], None]) -> "Iterator[tuple[str, Samples]]":
    """Each recording that can be read, with its samples; the others go to `fail`."""
    from sottovoce.audio import load_audio, read_audio

    for source in sources:
        try:
            yield (
                source,
                read_audio(sys.stdin.buffer, "standard input") if source == STDIN else load_audio(source),
            )
        except OF_ONE_RECORDING as error:
            fail(source, error)


def _batches(loaded: "Iterable[tuple[str, Samples]]", size: int) -> "Iterator[list[tuple[str, Samples]]]":
    """Up to `size` short recordings at a time, in order; a long one alone, to be printed as it is decoded."""
    from sottovoce.audio import SAMPLE_RATE

    batch: list[tuple[str, Samples]] = []
    for source, samples in loaded:
        is_short = len(samples) <= SHORT_SECONDS * SAMPLE_RATE
        if batch and (not is_short or len(batch) == size):
            yield batch
            batch = []
        if is_short:
            batch.append((source, samples))
        else:
            yield [(source, samples)]
    if batch:
        yield batch


def _transcribed(
    transcriber: "sottovoce.Transcriber", batch: "Sequence[tuple[str, Samples]]", options: dict[str, Any]
) -> Iterator[tuple[str, Result | Exception]]:
    """Each recording's name with its result, or with the error that is its own."""
    if len(batch) > 1:
        try:
            results = transcriber.transcribe_batch([samples for _, samples in batch], **options)
            yield from zip((source for source, _ in batch), results, strict=True)
            return
        except OF_ONE_RECORDING:
            pass  # one by one, to find whose it is
    for source, samples in batch:
        try:
            yield source, transcriber.transcribe(samples, **options)
        except OF_ONE_RECORDING as error:
            yield source, error


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = (-1.0,)
    if not all(0 <= value <= 2 for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers from 0 to 2, such as 0,0.2,0.4")
    return values
