"""`Transcriber`: audio in, segments out. The one object a user of speech needs.

Ties together the bundle, the voice activity detector, the engine and the decoder; each knows its own part. Nothing is
loaded until `load` or the first use.
"""

import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sottovoce.audio import Source, load_audio
from sottovoce.errors import BundleError, InputError
from sottovoce.loading import Loaded, Recording
from sottovoce.pieces import Heard, Piece, PieceDecoder, average, groups
from sottovoce.streaming.chunks import Chunk
from sottovoce.streaming.drive import drive
from sottovoce.streaming.events import Event
from sottovoce.streaming.listener import Listener
from sottovoce.streaming.options import StreamOptions, stream_options
from sottovoce.streaming.policy import Policy
from sottovoce.streaming.session import StreamSession
from sottovoce.types import Segment, TranscribeOptions, TranscriptionInfo
from sottovoce.vad import SAMPLE_RATE

_OPTION_NAMES = frozenset(field.name for field in fields(TranscribeOptions))


class Transcriber:
    """Transcribes with one bundle.

    Not safe for use from several threads at once: make one for each.
    """

    def __init__(self, bundle: str | os.PathLike[str], *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise InputError(f"threads = {threads}; at least 1 is needed")
        self.path = Path(bundle)
        self._threads = threads or min(4, os.cpu_count() or 1)
        self._loaded: Loaded | None = None

    def load(self) -> None:
        """Open the bundle, check it, and make its sessions ready.

        Raises BundleError for a damaged bundle or one made for something else, EngineError when the engine fails.
        """
        if self._loaded is None:
            self._loaded = Loaded.open(self.path, self._threads)

    def close(self) -> None:
        """Give all memory back. The transcriber loads again when it is used again."""
        if self._loaded is not None:
            self._loaded.engine.close()
            self._loaded = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def attach_adapter(self, path: str | os.PathLike[str], scale: float = 1.0) -> None:
        """Add a LoRA adapter that `sottovoce adapter` made for this bundle's model; several add up.

        What is being decoded goes on without it. Raises BundleError for a damaged file or a bundle without room for
        adapters, InputError for an adapter of another base or one that changes nothing; nothing has changed then.
        """
        from sottovoce.speech_adapters import attach

        attach(self._ready, Path(path), scale)

    def detach_adapters(self) -> None:
        """Remove all adapters: the bundle's own model again, to the bit."""
        if self._loaded is not None:
            self._loaded.engine.detach()

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages the model knows, in the model's order; only "en" for an English-only model."""
        return tuple(self._ready.tokens.languages) or ("en",)

    def transcribe(
        self, audio: Source, sample_rate: int | None = None, **options: Any
    ) -> tuple[Iterator[Segment], TranscriptionInfo]:
        """Segments of one recording, decoded while they are iterated over, and what is known of the whole.

        `audio` is a path, the bytes of an audio file, or float32 (samples,) at `sample_rate` (16 kHz if not given).
        `options` are the fields of `TranscribeOptions`. Raises AudioError for audio that cannot be read, InputError for
        an option that makes no sense.
        """
        chosen, ready = _options(options), self._ready
        ready.check(chosen)
        return self._transcribe(ready.cut(load_audio(audio, sample_rate), chosen), chosen)

    def transcribe_batch(
        self, audio: Sequence[Source], sample_rate: int | None = None, **options: Any
    ) -> list[tuple[list[Segment], TranscriptionInfo]]:
        """Several recordings at once, each with its own language; results in the order of `audio`.

        Faster than one by one, with the same text: what is shorter than a piece is decoded together with others of its
        length. Raises as `transcribe` does, for the first recording that cannot be read.
        """
        chosen, ready = _options(options), self._ready
        ready.check(chosen)
        recordings = [ready.cut(load_audio(one, sample_rate), chosen) for one in audio]
        short = [i for i, one in enumerate(recordings) if len(one.pieces) == 1]
        results = dict(zip(short, self._transcribe_short([recordings[i] for i in short], chosen), strict=True))
        for i, recording in enumerate(recordings):
            if i not in results:
                segments, info = self._transcribe(recording, chosen)
                results[i] = list(segments), info
        return [results[i] for i in range(len(recordings))]

    def stream_options(self, **options: Any) -> StreamOptions:
        """How a stream with these `options` works: those not given are the bundle's own, which were measured on its
        target, then the runtime's defaults. Raises InputError for one that makes no sense.
        """
        stream_options(options)  # told before a model is loaded
        return stream_options({**self._ready.stream, **options})

    def session(
        self,
        sample_rate: int = SAMPLE_RATE,
        *,
        clock: Callable[[], float] = time.perf_counter,
        policy: Policy | None = None,
        **options: Any,
    ) -> StreamSession:
        """A live stream to push audio into; `options` are the fields of `StreamOptions`, see `stream_options`.

        `sample_rate` (Hz) is that of plain arrays. `clock` tells how long a step takes: the slower, the fewer steps.
        `policy` decides which words are settled, where it shall not be the one that measured best.
        Raises InputError for an option that makes no sense, BundleError for a bundle that cannot stream.
        """
        chosen, ready = self.stream_options(**options), self._ready
        ready.check(replace(TranscribeOptions(), language=chosen.language, task=chosen.task))
        if ready.vad is None:
            raise BundleError(f"{self.path} has no voice activity detector, which streaming needs; compile it again")
        prompt = ready.table.encode(" " + chosen.initial_prompt.strip()) if chosen.initial_prompt else []
        listener = Listener(ready.engine, ready.tokens, ready.table, chosen.task)
        return StreamSession(listener, ready.vad, chosen, sample_rate, clock, tuple(prompt), policy)

    def stream(
        self, chunks: Iterable[Chunk], sample_rate: int = SAMPLE_RATE, **options: Any
    ) -> Generator[Event, None, None]:
        """Events of live audio, as soon as they are known; `options` are the fields of `StreamOptions`.

        `chunks` are arrays (n,) or (n, channels) at `sample_rate` Hz, of any length, or `AudioChunk`s with a rate of
        their own. Nothing is read while nobody asks for the next event. Where `chunks` raises, all that was said is
        committed first. Closing the generator, at any moment, gives everything back and closes `chunks`.

        Raises AudioError for audio that is none, InputError for an option that makes no sense.
        """
        return drive(self.session(sample_rate, **options), chunks)

    def astream(
        self, chunks: AsyncIterable[Chunk], sample_rate: int = SAMPLE_RATE, **options: Any
    ) -> AsyncGenerator[Event, None]:
        """`stream` for asyncio: decoding runs in a thread, and the source is read meanwhile."""
        from sottovoce.streaming.asynchronous import drive_async  # asyncio takes long to import

        return drive_async(self.session(sample_rate, **options), chunks)

    def _transcribe(
        self, recording: Recording, options: TranscribeOptions
    ) -> tuple[Iterator[Segment], TranscriptionInfo]:
        ready = self._ready
        decoder = PieceDecoder(ready.engine, ready.tokens, ready.table, options)
        pieces = [Piece(recording.samples[span.start : span.end], span.start) for span in recording.pieces]
        if not pieces:
            return iter(()), _info(recording, options, None)
        most = 1 if options.condition_on_previous_text else options.batch_size
        parts = groups(pieces, ready.engine.bytes_per_second(), most)
        first = decoder.begin(parts[0])
        heard = average(first.heard)
        return _numbered(decoder.in_order(parts, first, heard.language)), _info(recording, options, heard)

    def _transcribe_short(
        self, recordings: Sequence[Recording], options: TranscribeOptions
    ) -> list[tuple[list[Segment], TranscriptionInfo]]:
        """Recordings of one piece each, those of similar length together."""
        ready = self._ready
        decoder = PieceDecoder(ready.engine, ready.tokens, ready.table, options)
        spans = [one.pieces[0] for one in recordings]
        pieces = [Piece(one.samples[s.start : s.end], s.start) for one, s in zip(recordings, spans, strict=True)]
        order = sorted(range(len(pieces)), key=lambda i: pieces[i].samples.size)
        results: dict[int, tuple[list[Segment], TranscriptionInfo]] = {}
        parts = groups([pieces[i] for i in order], ready.engine.bytes_per_second(), options.batch_size)
        position = iter(order)
        for part in parts:
            begun = decoder.begin(part)
            found = decoder.decode(begun, [heard.language for heard in begun.heard], decoder.initial_prompt())
            for segments, heard in zip(found, begun.heard, strict=True):
                i = next(position)
                results[i] = list(_numbered(iter(segments))), _info(recordings[i], options, heard)
        return [results[i] for i in range(len(recordings))]

    @property
    def _ready(self) -> Loaded:
        self.load()
        assert self._loaded is not None  # load raises instead
        return self._loaded


def _options(given: dict[str, Any]) -> TranscribeOptions:
    """Raises InputError naming an option that does not exist or a value that makes no sense."""
    unknown = sorted(given.keys() - _OPTION_NAMES)
    if unknown:
        raise InputError(f"no option {unknown[0]!r}; there are {', '.join(sorted(_OPTION_NAMES))}")
    options = TranscribeOptions(**given)
    if isinstance(options.temperature, int | float):
        options = replace(options, temperature=(float(options.temperature),))
    for name in ("beam_size", "batch_size"):
        value = getattr(options, name)
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} = {value!r}; a whole number of at least 1 is needed")
    if not _are_temperatures(options.temperature):
        raise InputError(f"temperature = {options.temperature!r}; one or more numbers of at least 0 are needed")
    if not isinstance(options.seed, int) or options.seed < 0:
        raise InputError(f"seed = {options.seed!r}; a whole number of at least 0 is needed")
    return options


def _are_temperatures(values: object) -> bool:
    if not isinstance(values, list | tuple) or not values:
        return False
    return all(isinstance(value, int | float) and 0 <= value < float("inf") for value in values)


def _info(recording: Recording, options: TranscribeOptions, heard: Heard | None) -> TranscriptionInfo:
    known = heard or Heard({options.language or "en": 0.0})
    return TranscriptionInfo(
        language=known.language,
        language_probability=round(known.probability, 4),
        duration=round(recording.duration, 3),
        duration_after_vad=round(recording.speech, 3),
        all_language_probs=tuple(known.probabilities.items()) if options.language is None else None,
        task=options.task,
    )


def _numbered(segments: Iterator[Segment]) -> Iterator[Segment]:
    return (replace(segment, id=number) for number, segment in enumerate(segments, 1))
