"""Measuring a bundle's stream: each clip played live, then transcribed as a whole by the same bundle.

Knows the runtime's public `Transcriber`. Does not know what is counted (stream.py), nor how time passes
(stream_clock.py).
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

import sottovoce
from sottovoce.audio import load_audio
from sottovoce.bench import MEGABYTE, machine_facts, peak_bytes
from sottovoce.errors import InputError, SottovoceError
from sottovoce.streaming.options import StreamOptions, stream_options
from sottovoce_compiler.report.dataset import Clip, Dataset
from sottovoce_compiler.report.evaluate import Failure
from sottovoce_compiler.report.stream import Machine, Offline, StreamScorecard, score_clip
from sottovoce_compiler.report.stream_clock import LiveRun, no_time, play
from sottovoce_compiler.report.stream_score import ends_of

# A compile measures so much: some hundred words tell a good stream from a bad one, and cost seconds.
COMPILE_SPEECH_SECONDS = 120.0
COMPILE_SILENT_SECONDS = 60.0
_FROM_THE_DATA = "language"

_Result = TypeVar("_Result")

Progress = Callable[[int], None]  # clips done


def evaluate_stream(
    bundle: str | Path,
    dataset: Dataset,
    settings: Mapping[str, Any] = MappingProxyType({}),
    threads: int | None = None,
    charged: bool = True,
    memory: bool = True,
    progress: Progress = lambda finished: None,
) -> StreamScorecard:
    """Streams every clip in its known language and transcribes it. A failing clip is listed; a bug is raised.

    `charged`: compute takes the time that it takes here; else none, and the same bundle gives the same scorecard
    anywhere that rounds alike. `settings`: options in place of the bundle's own. `memory`: the peak of this process
    means something, as nothing large ran in it before.
    """
    before = peak_bytes()
    failures: list[Failure] = []
    with closing(sottovoce.Transcriber(bundle, threads=threads)) as transcriber:
        options = transcriber.stream_options(**settings)
        runs = _each(dataset.clips, partial(_play, transcriber, options, charged), failures, progress)
        after = peak_bytes()  # before the clips are transcribed as a whole, which takes more
        whole = dict(_each([clip for clip, _ in runs], partial(_offline, transcriber), failures))
    clips = tuple(score_clip(clip, run, whole[clip]) for clip, run in runs if clip in whole)
    peak = None if before is None or after is None or not memory else round((after - before) / MEGABYTE, 1)
    machine = Machine(machine_facts(), threads, peak) if charged else None
    return StreamScorecard(dataset.name, dataset.sha256, clips, settings_of(options), machine, tuple(failures))


def compiled_stream(bundle: Path, dataset: Dataset, charged: bool = False) -> StreamScorecard:
    """What a compile measures of the stream: the beginning of the data, with the bundle's own settings.

    The process has held the source model, so that its memory says nothing.
    """
    return evaluate_stream(bundle, beginning(dataset), charged=charged, memory=False)


def beginning(dataset: Dataset) -> Dataset:
    """The first two minutes of speech and the first minute without, in whole clips; the shortest where none fits."""
    left = {True: COMPILE_SPEECH_SECONDS, False: COMPILE_SILENT_SECONDS}
    kept: list[Clip] = []
    for clip in dataset.clips:
        if clip.seconds <= left[clip.is_speech]:
            left[clip.is_speech] -= clip.seconds
            kept.append(clip)
    if not any(clip.is_speech for clip in kept):
        kept += sorted((clip for clip in dataset.clips if clip.is_speech), key=lambda clip: clip.seconds)[:1]
    return Dataset(dataset.name, tuple(kept))


def settings_of(options: StreamOptions) -> dict[str, Any]:
    """The options that are the same for all clips, by name."""
    return {name: value for name, value in asdict(options).items() if name != _FROM_THE_DATA}


def settings_from(assignments: Iterable[str]) -> dict[str, Any]:
    """Options by name from NAME=VALUE texts. Raises InputError naming what is wrong."""
    settings = dict(_assigned(text) for text in assignments)
    stream_options(settings)
    return settings


def _assigned(text: str) -> tuple[str, Any]:
    kinds = get_type_hints(StreamOptions)
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if name == _FROM_THE_DATA:
        raise InputError(f"--set {text}: each clip is heard in its language in the data; change it there")
    if not equals or name not in kinds:
        known = ", ".join(field.name for field in fields(StreamOptions) if field.name != _FROM_THE_DATA)
        raise InputError(f"--set {text}: expected NAME=VALUE, NAME one of {known}")
    return name, _READERS.get(kinds[name], _text)(text, value.strip())


def _number(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise InputError(f"--set {text}: {value!r} is not a number") from None


def _switch(text: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise InputError(f"--set {text}: {value!r} is neither true nor false")
    return value == "true"


def _text(text: str, value: str) -> str | None:
    return value or None


_READERS: Mapping[Any, Callable[[str, str], Any]] = {float: _number, bool: _switch}


def _each(
    clips: Iterable[Clip],
    work: Callable[[Clip], _Result],
    failures: list[Failure],
    progress: Progress = lambda finished: None,
) -> list[tuple[Clip, _Result]]:
    """What came of each clip for which something did; the others are added to `failures`."""
    results = []
    for number, clip in enumerate(clips, start=1):
        try:
            results.append((clip, work(clip)))
        except (SottovoceError, OSError) as error:
            failures.append(Failure(clip, str(error)))
        progress(number)
    return results


def _play(transcriber: sottovoce.Transcriber, options: StreamOptions, charged: bool, clip: Clip) -> LiveRun:
    clock = time.perf_counter if charged else no_time
    samples = load_audio(clip.file)
    settings = asdict(replace(options, language=_language(transcriber, clip)))
    with closing(transcriber.session(clock=clock, **settings)) as session:
        run = play(session, samples, clock=clock)
        return replace(run, decodings=session.steps)


def _offline(transcriber: sottovoce.Transcriber, clip: Clip) -> Offline:
    language = _language(transcriber, clip)
    segments, _ = transcriber.transcribe(clip.file, language=language, word_timestamps=True)
    found = list(segments)
    words = [word for segment in found for word in segment.words or ()]
    return Offline("".join(segment.text for segment in found).strip(), ends_of(words))


def _language(transcriber: sottovoce.Transcriber, clip: Clip) -> str | None:
    """The clip's language, where it is known to us and to the model."""
    return clip.language if clip.language in transcriber.languages else None
