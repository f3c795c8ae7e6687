"""Recordings with what is said in them, from a file to the examples of a split: read this from top to bottom.

Every recording is decoded once before training starts, so that what is missing, damaged or too long is named by its
line; what Whisper hears of it is computed when it is asked for. Knows lines and Whisper's tokens; knows no model's
weights, and nothing of batches.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

import numpy as np

from sottovoce.audio import SAMPLE_RATE, load_audio
from sottovoce.decoding.grammar import TIMESTAMP_STEP, Tokens
from sottovoce.errors import InputError
from sottovoce.pieces import Piece
from sottovoce.tokens import TokenTable
from sottovoce_compiler.families.whisper import WhisperSpec, whisper_spec
from sottovoce_compiler.finetune.data.augment import Samples, Spoken, Utterance, more_of
from sottovoce_compiler.finetune.data.dataset import OVERFLOWS, Overflow
from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.finetune.data.lines import Faults, Lines, check_lines
from sottovoce_compiler.finetune.data.records import SpeechLine
from sottovoce_compiler.finetune.data.speech_report import SpeechReport
from sottovoce_compiler.finetune.data.split import Split, by_file, by_seed
from sottovoce_compiler.lowerings.onnx.whisper import SAMPLES_PER_FRAME
from sottovoce_compiler.report.normalize import counts_characters
from sottovoce_compiler.sources.checkpoint import Checkpoint

LEAD_SAMPLES: Final = Piece(np.zeros(0, np.float32), 0).lead  # of silence that the device puts before a recording
LONGEST: Final = 29.0  # seconds: what the runtime decodes as one piece
SHORTEST: Final = 0.1


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """What is longer than a piece, or than the decoder's context, is refused or dropped, as `overflow` says: without
    knowing where its words are, a recording cannot be cut. `eval_fraction` of the data is kept to measure on, chosen by
    `seed`. Of the others `ways` of `augment.py` make more."""

    overflow: Overflow = "error"
    eval_fraction: float = 0.0
    seed: int = 0
    ways: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.overflow not in OVERFLOWS:
            raise InputError(f"overflow {self.overflow!r}; one of {', '.join(OVERFLOWS)}")
        if self.overflow == "cut":
            raise InputError(
                "recordings cannot be cut: where their words are is not known; give lines start and end, or drop them"
            )


@dataclass(frozen=True, slots=True)
class Recording:
    """Where the samples of an example are; `start` and `end` in seconds, None for the file's own."""

    path: Path
    start: float | None = None
    end: float | None = None

    def load(self) -> Samples:
        """(n,) float32 at 16 kHz. Raises AudioError for what is not usable audio."""
        samples = load_audio(self.path)
        first = 0 if self.start is None else round(self.start * SAMPLE_RATE)
        last = None if self.end is None else round(self.end * SAMPLE_RATE)
        return samples[first:last]


@dataclass(frozen=True, slots=True, eq=False)
class SpeechExample:
    """What is said in a sound: `plain` without timestamps, `timed` with them, as the device decodes by default. Which
    of them is the truth is told by neither: timestamps are fed, but not learned."""

    utterance: Utterance
    plain: Example
    timed: Example

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.utterance.seconds

    @property
    def text(self) -> str:
        """All that is said."""
        return self.utterance.text

    @property
    def language(self) -> str | None:
        """Its code; None where the model knows but English."""
        return self.utterance.language

    @property
    def task(self) -> str:
        """ "transcribe" or "translate"."""
        return self.utterance.task

    @property
    def line(self) -> int:
        """Where it stands in the data."""
        return self.utterance.line

    @property
    def labelled(self) -> int:
        """Tokens of which a loss is computed."""
        return self.plain.labelled

    def digest(self, salt: bytes = b"") -> bytes:
        """16 bytes that tell apart what is learned from what."""
        return hashlib.blake2b(salt + self.utterance.digest + self.plain.digest(), digest_size=16).digest()

    def heard(self) -> Samples:
        """The samples as the encoder hears them on the device: with a little silence before."""
        return Piece(self.utterance.sound.load(), 0).padded()


@dataclass(frozen=True, slots=True, eq=False)
class SpeechData:
    """Examples to learn and to measure on. `steering` and `table` are the runtime's, to decode with."""

    train: tuple[SpeechExample, ...]
    eval: tuple[SpeechExample, ...]
    report: SpeechReport
    spec: WhisperSpec
    steering: Tokens
    table: TokenTable

    @classmethod
    def load(
        cls,
        path: Path,
        checkpoint: Checkpoint,
        options: SpeechOptions | None = None,
        *,
        eval_data: Path | None = None,
    ) -> "SpeechData":
        """The examples of the file at `path` for the Whisper of `checkpoint`, of which no weights are read.

        With `eval_data` all of that file is eval and all of `path`, but for duplicates, train. Raises DataError that
        names the lines that cannot be used, InputError where nothing is left or an option makes no sense, SourceError
        and UnsupportedModelError for the model.
        """
        options = options or SpeechOptions()
        lines = check_lines(path, ("speech",))
        others = check_lines(eval_data, ("speech",)) if eval_data is not None else None
        spec = whisper_spec(checkpoint)
        making = _Making(spec, Coder.of(checkpoint, spec), options)
        made = making.examples(lines)
        if others is None:
            split: Split[SpeechExample] = by_seed(made, options.eval_fraction, options.seed)
        else:
            split = by_file(made, making.examples(others))
        for name, part in ((path, split.train), (eval_data, split.eval)):
            if name is not None and not part:
                raise InputError(
                    f"{name.name}: nothing is left to use of {lines.count} lines, {making.dropped} dropped"
                )
        split = replace(split, train=(*split.train, *making.more(split.train)))
        count = lines.count + (others.count if others else 0)
        report = SpeechReport.of(count, split, making.dropped)
        return cls(split.train, split.eval, report, spec, making.coder.steering, making.coder.table)


@dataclass(frozen=True, slots=True)
class Coder:
    """Text to the tokens of one Whisper. Encoding is the runtime's own: byte-pair encoding by rank."""

    table: TokenTable
    steering: Tokens

    @classmethod
    def of(cls, checkpoint: Checkpoint, spec: WhisperSpec) -> "Coder":
        """From the checkpoint's vocabulary."""
        texts = [token if isinstance(token, bytes) else b"" for token in checkpoint.vocabulary]
        return cls(TokenTable(texts, spec.tokens.end), Tokens.of(spec.generation_json(), spec.vocab_size))

    def examples(self, utterance: Utterance) -> tuple[Example, Example]:
        """Without and with timestamps. Raises InputError for a language or a task that the model does not have."""
        known, language = self.steering.languages, utterance.language
        if not known and language not in (None, "en"):
            raise InputError(f"language: {language!r}; this model is English only")
        if known and language is None:
            raise InputError('language: is missing; a multilingual model is told what it hears, as "language": "en"')
        # Words begin with a space, the first too; scripts that have no spaces between words have none there either.
        before = "" if counts_characters(language) else " "
        texts = [self.table.encode(before + one.text.strip()) for one in utterance.spoken]
        prompt = self.steering.prompt(language, utterance.task, timestamps=False)
        timed = self.steering.prompt(language, utterance.task, timestamps=True)
        learned = [False] * len(timed)
        for text, one in zip(texts, utterance.spoken, strict=True):
            timed = [*timed, self._timestamp(one.start), *text, self._timestamp(one.end)]
            learned += [False, *[True] * len(text), False]
        plain = [token for text in texts for token in text]
        end = self.steering.end
        return (
            Example.of([*prompt, *plain, end], [False] * len(prompt) + [True] * (len(plain) + 1), utterance.line),
            Example.of([*timed, end], [*learned, True], utterance.line),
        )

    def _timestamp(self, seconds: float) -> int:
        return self.steering.timestamp_begin + round(seconds / TIMESTAMP_STEP)


class _Making:
    """Makes examples, and counts what is left out."""

    def __init__(self, spec: WhisperSpec, coder: Coder, options: SpeechOptions) -> None:
        self.coder, self.dropped = coder, 0
        self._spec, self._options = spec, options
        self._longest = min(LONGEST, spec.n_audio_ctx * SAMPLES_PER_FRAME / SAMPLE_RATE - 0.1)

    def examples(self, lines: Lines) -> list[SpeechExample]:
        """The examples of a file. Raises DataError for lines of which none can be made, once all were tried."""
        faults, found = Faults(lines.path.name), list[SpeechExample]()
        loaded: tuple[Path, Samples | InputError] | None = None  # lines next to each other often share a file
        for line in cast(Iterator[SpeechLine], iter(lines)):
            if loaded is None or loaded[0] != line.audio:
                loaded = line.audio, _decoded(line.audio)
            if isinstance(loaded[1], InputError):
                faults.add(line.line, str(loaded[1]))
                continue
            try:
                example = self._example(line, loaded[1])
            except InputError as error:
                faults.add(line.line, str(error))
                continue
            found += [example] if example is not None else []
        faults.check(lines.count)
        return found

    def _example(self, line: SpeechLine, samples: Samples) -> SpeechExample | None:
        """None for one that is dropped. Raises InputError for one that cannot be used."""
        first, last = _bounds(line, len(samples))
        seconds = (last - first) / SAMPLE_RATE
        sound = hashlib.blake2b(np.ascontiguousarray(samples[first:last], "<f4").tobytes(), digest_size=16).digest()
        utterance = Utterance(
            Recording(line.audio, line.start, line.end),
            seconds,
            sound,
            (Spoken(line.text, 0.0, seconds),),
            line.language,
            line.task,
            line.line,
        )
        made = SpeechExample(utterance, *self.coder.examples(utterance))
        too_long = self._too_long(seconds, made.timed)
        if too_long and self._options.overflow == "error":
            raise InputError(f"{too_long}; cut it with start and end, or drop such lines")
        if too_long:
            self.dropped += 1
            return None
        return made

    def more(self, examples: Sequence[SpeechExample]) -> list[SpeechExample]:
        """What the options make of examples, those that are too long left out."""
        made = more_of([one.utterance for one in examples], self._options.ways, self._options.seed, self._fits)
        return [SpeechExample(one, *self.coder.examples(one)) for one in made]

    def _fits(self, utterance: Utterance) -> bool:
        # What is too long to be heard is not encoded first.
        return utterance.seconds <= self._longest and not self._too_long(
            utterance.seconds, self.coder.examples(utterance)[1]
        )

    def _too_long(self, seconds: float, timed: Example) -> str | None:
        if seconds > self._longest:
            return f"is {seconds:.1f} s, at most {self._longest:.1f} s are heard at once"
        if len(timed) > self._spec.n_text_ctx:
            return f"text is {len(timed)} tokens, at most {self._spec.n_text_ctx} fit"
        return None


def _decoded(path: Path) -> Samples | InputError:
    try:
        return load_audio(path)
    except InputError as error:
        return error


def _bounds(line: SpeechLine, samples: int) -> tuple[int, int]:
    """First sample and the one after the last. Raises InputError for a stretch that is not there."""
    first = round((line.start or 0.0) * SAMPLE_RATE)
    last = samples if line.end is None else round(line.end * SAMPLE_RATE)
    if last > samples + SAMPLE_RATE // 10:
        raise InputError(f"end: {line.end} s; the recording has {samples / SAMPLE_RATE:.2f} s")
    last = min(last, samples)
    if last - first < SHORTEST * SAMPLE_RATE:
        what = f"start: {line.start} s; the recording has" if line.start else "the recording has only"
        raise InputError(f"{what} {samples / SAMPLE_RATE:.2f} s")
    return first, last
