"""`sottovoce transcribe --stream`: one recording as if it were live.

Plain text is shown as it settles, like that of `listen`; every other format is made of the settled words after the end,
in segments as `transcribe` has them. Knows nothing of how speech becomes text.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from sottovoce.cli import DONE, INTERRUPTED
from sottovoce.cli.captions import open_captions, play
from sottovoce.cli.live import given, stopped_by_ctrl_c
from sottovoce.cli.outlet import STDIN, choose_outlet
from sottovoce.cli.progress import Progress, clock
from sottovoce.cli.speech import ready_transcriber
from sottovoce.errors import InputError
from sottovoce.streaming.events import Committed, Event, SpeechEnded, SpeechStarted
from sottovoce.types import Segment, TranscriptionInfo, Word

if TYPE_CHECKING:
    from sottovoce.streaming.sources.recording import Recording

NOT_LIVE = ("beam_size", "batch_size", "temperature", "no_vad")  # options that a stream does not have
SEGMENT_SECONDS = 5.0  # speech after which a segment ends with the sentence, in an utterance without a pause
SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！", "।", "؟")


def run_stream(args: argparse.Namespace) -> int:
    """Exit code 0; 130 where Ctrl-C ended it before the recording did, with what was said until then."""
    _check(args)
    outlet = choose_outlet(args.audio, args.format, words=args.words, folder=args.output, as_json=args.json)
    options = given(args, "language", "task", "initial_prompt")
    is_live = args.format == "txt" and args.output is None and not args.json
    if not is_live:
        options["partials"] = False
    with closing(_recording(args)) as source, ready_transcriber(args) as transcriber:
        duration = source.duration
        with stopped_by_ctrl_c(source) as interruption, closing(transcriber.stream(source, **options)) as events:
            if is_live:
                with closing(open_captions()) as captions:
                    play(events, captions)
            else:
                outlet.write(args.audio[0], *_heard(args, events, source))
                outlet.finish()
        if interruption.asked and source.time < duration:
            print(f"sottovoce: interrupted at {clock(source.time)} of {clock(duration)}", file=sys.stderr)
            return INTERRUPTED
    return DONE


def _check(args: argparse.Namespace) -> None:
    """Raises InputError for options that do not go together."""
    if not args.stream:
        raise InputError("--no-pace is for --stream; without it, transcribe never waits")
    if len(args.audio) > 1:
        raise InputError(f"--stream takes one recording at a time, and these are {len(args.audio)}")
    for name in NOT_LIVE:
        if getattr(args, name) not in (None, False):
            raise InputError(f"--{name.replace('_', '-')} is not for --stream, which decodes greedily what is spoken")


def _recording(args: argparse.Namespace) -> "Recording":
    from sottovoce.audio import SAMPLE_RATE, load_audio, read_audio
    from sottovoce.streaming.sources.recording import Recording

    name = args.audio[0]
    samples = read_audio(sys.stdin.buffer, "standard input") if name == STDIN else load_audio(name)
    return Recording(samples, SAMPLE_RATE, pace=not args.no_pace)


def _heard(
    args: argparse.Namespace, events: Iterable[Event], source: "Recording"
) -> tuple[list[Segment], TranscriptionInfo]:
    """All segments, and what is known of the whole."""
    duration = source.duration
    heard, progress = _Heard(), Progress(duration, Path(args.audio[0]).name)
    segments: list[Segment] = []
    try:
        for segment in segments_of(heard.followed(events), words=args.words):
            segments.append(segment)
            progress.update(source.time)
    finally:
        progress.clear()
    language = heard.language or args.language or "en"
    probability = math.nan if args.language is None else 1.0
    return segments, TranscriptionInfo(language, probability, duration, heard.speech, task=args.task or "transcribe")


class _Heard:
    """What a stream tells of the whole: seconds of speech, and the language it was heard in first."""

    def __init__(self) -> None:
        self.speech, self.language = 0.0, ""
        self._began = 0.0

    def followed(self, events: Iterable[Event]) -> Iterator[Event]:
        """The same events."""
        for event in events:
            match event:
                case SpeechStarted():
                    self._began = event.time
                case SpeechEnded():
                    self.speech += event.time - self._began
                case Committed():
                    self.language = self.language or event.language
            yield event


def segments_of(events: Iterable[Event], *, words: bool) -> Iterator[Segment]:
    """One segment for each utterance; a long one is cut where a sentence ends. With `words`, they stand in it.

    What a stream does not tell of a segment (its tokens, the probability of silence, how repetitive it is) is empty or
    NaN.
    """
    number, said = 0, list[Word]()
    for event in events:
        for word in event.words if isinstance(event, Committed) else ():
            said.append(word)
            if word.word.rstrip().endswith(SENTENCE_ENDS) and word.end - said[0].start >= SEGMENT_SECONDS:
                number += 1
                yield _segment(number, said, words)
                said = []
        if isinstance(event, SpeechEnded) and said:
            number += 1
            yield _segment(number, said, words)
            said = []
    if said:
        yield _segment(number + 1, said, words)


def _segment(number: int, said: list[Word], words: bool) -> Segment:
    logprob = sum(math.log(max(word.probability, 1e-6)) for word in said) / len(said)
    return Segment(
        id=number,
        start=said[0].start,
        end=max(said[-1].end, said[0].start),
        text="".join(word.word for word in said),
        tokens=(),
        avg_logprob=logprob,
        no_speech_prob=math.nan,
        compression_ratio=math.nan,
        temperature=0.0,
        words=tuple(said) if words else None,
    )
