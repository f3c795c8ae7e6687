"""Whisper's two graphs on onnxruntime's CPU provider.

Knows sessions, bindings and buffers; knows nothing of text, rules or segments. Weights are mapped from the bundle
itself, zip or folder; the self-attention cache is written in place; a batch holds one stacked copy of its rows'
cross-attention. With an adapter attached, two other graphs over the same weights run, which have inputs for it: without
one nothing is computed for it.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sottovoce.bundle import Bundle
from sottovoce.engines.onnx_session import engine_errors, open_session
from sottovoce.engines.shapes import SpeechShape
from sottovoce.engines.speech_adapter import SpeechAdapter, feeds, read_adapter, slots_of
from sottovoce.errors import BundleError, EngineError
from sottovoce.gguf import GgufFile
from sottovoce.huge_pages import HugePages

Float = NDArray[np.float32]
Int = NDArray[np.int64]
Cross = dict[str, Any]  # name in the graph -> OrtValue

ENCODER, DECODER, WEIGHTS = "encoder.onnx", "decoder.onnx", "weights.bin"
ADAPTED_ENCODER, ADAPTED_DECODER = "encoder-adapted.onnx", "decoder-adapted.onnx"  # the same, with room for adapters
_HIDDEN = np.float32(-1e9)  # added to the scores of frames that a shorter row of a batch does not have
_MIN_SAMPLES = 400  # the spectrogram reflects 200 samples at the start; shorter audio is followed by silence


@dataclass(frozen=True, slots=True)
class _Opened:
    """A session, and what its inputs for adapters are given: name -> OrtValue."""

    session: Any
    adapted: Cross

    @classmethod
    def of(cls, session: Any, values: Mapping[str, Float]) -> "_Opened":
        names = {one.name for one in session.get_inputs()}
        return cls(session, {name: _value(array) for name, array in values.items() if name in names})

    def binding(self) -> Any:
        """A binding in which the adapters' inputs are bound."""
        binding = self.session.io_binding()
        for name, value in self.adapted.items():
            binding.bind_ortvalue_input(name, value)
        return binding


class OnnxWhisper:
    """The engine of one bundle. Cheap to make; `load` opens the sessions."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self._bundle = bundle
        self._threads = threads
        self.shape = SpeechShape.of(bundle.manifest.model, bundle.manifest.audio)
        self._huge_pages = HugePages()
        self._encoder: _Opened | None = None
        self._decoder: _Opened | None = None
        self._intact: Future[None] | None = None
        self._adapters: list[SpeechAdapter] = []

    def load(self) -> None:
        """Open both sessions, and begin the weights' checksum, which the first use waits for.

        The graphs' own digests are checked before they are parsed; a flipped bit in plain weights crashes nothing, and
        nothing is said before the weights are known to be whole. Raises BundleError for a damaged graph, EngineError
        when onnxruntime refuses one.
        """
        if self._decoder is not None:
            return
        self._open(ADAPTED_ENCODER, ADAPTED_DECODER) if self._adapters else self._open(ENCODER, DECODER)
        # Opening a session keeps Python's lock: a checksum beside it would only make both wait for each other. It runs
        # while the first audio is encoded.
        beside = ThreadPoolExecutor(1)
        self._intact = beside.submit(self._bundle.check_file, WEIGHTS)
        beside.shutdown(wait=False)

    def close(self) -> None:
        """Give the sessions' memory back."""
        self._huge_pages.close()
        self._huge_pages = HugePages()
        self._encoder = self._decoder = None

    @property
    def vocab_size(self) -> int:
        """How many logits a position has."""
        return self.shape.vocab_size

    @property
    def adapters(self) -> int:
        """How many adapters are attached."""
        return len(self._adapters)

    def attach(self, file: GgufFile, scale: float) -> None:
        """Add an adapter, `scale` times, to those that are attached; decoding that has begun goes on without it.

        Raises InputError for one that does not fit, BundleError for a bundle without room for adapters.
        """
        if ADAPTED_ENCODER not in self._bundle.manifest.files:
            raise BundleError(f"{self._bundle.path} was compiled without room for adapters; compile it again")
        self.load()
        sessions = self._adapted_sessions()
        adapter = read_adapter(file, slots_of(sessions), scale)
        self._use(*sessions, [*self._adapters, adapter])

    def detach(self, keep: int = 0) -> None:
        """Remove all adapters but the first `keep`."""
        if len(self._adapters) <= keep:
            return
        self._adapters = self._adapters[:keep]
        if self._encoder is None or self._decoder is None:
            return
        if self._adapters:
            self._use(self._encoder.session, self._decoder.session, self._adapters)
        else:
            self._open(ENCODER, DECODER)

    def _adapted_sessions(self) -> tuple[Any, Any]:
        if self._adapters and self._encoder is not None and self._decoder is not None:
            return self._encoder.session, self._decoder.session
        return self._sessions(ADAPTED_ENCODER, ADAPTED_DECODER)

    def _use(self, encoder: Any, decoder: Any, adapters: list[SpeechAdapter]) -> None:
        values = feeds(adapters, slots_of([encoder, decoder]))
        self._encoder, self._decoder = _Opened.of(encoder, values), _Opened.of(decoder, values)
        self._adapters = adapters

    def _open(self, encoder: str, decoder: str) -> None:
        self._use(*self._sessions(encoder, decoder), self._adapters)

    def _sessions(self, encoder: str, decoder: str) -> tuple[Any, Any]:
        with self._huge_pages, ThreadPoolExecutor(1) as pool:
            first = pool.submit(open_session, self._bundle, encoder, self._threads, ever_other_lengths=True)
            second = open_session(self._bundle, decoder, self._threads)
            return first.result(), second

    def bytes_per_second(self) -> int:
        shape = self.shape
        frames = 16_000 // shape.frame_samples
        return frames * 2 * shape.layers * shape.heads * shape.head_width * 4

    def start(self, clips: Sequence[Float], capacity: int) -> "OnnxBatch":
        """See `engines.SpeechEngine.start`. Raises EngineError when onnxruntime does, BundleError for damaged
        weights."""
        self.load()
        cross = self._encode(clips[0]) if len(clips) == 1 else self._encode_rows(clips)
        if self._intact is not None:
            self._intact.result()
        assert self._decoder is not None  # loaded above
        return OnnxBatch(self._decoder, self.shape, cross, len(clips), min(capacity, self.shape.text_context))

    def _encode_rows(self, clips: Sequence[Float]) -> Cross:
        """Clips as rows of one block for each name, as long as the longest clip, the rest hidden.

        Each clip is copied as soon as it is encoded: a batch holds its audio once, and one clip twice for a moment.
        """
        order = sorted(range(len(clips)), key=lambda row: -clips[row].size)
        blocks: dict[str, Float] = {}
        for row in order:
            for name, value in self._encode(clips[row]).items():
                part = value.numpy()
                if row == order[0]:
                    fill = _HIDDEN if name == "key_bias" else np.float32(0)
                    blocks[name] = np.full((len(clips), *part.shape[1:]), fill, np.float32)
                _, first, second, third = part.shape
                blocks[name][row, :first, :second, :third] = part[0]
        return {name: _value(block) for name, block in blocks.items()}

    def _encode(self, samples: Float) -> Cross:
        """Keys and values for every decoder layer, and the bias of every key, by the graph's names."""
        audio = np.ascontiguousarray(samples[: self.shape.max_frames * self.shape.frame_samples], np.float32)
        if audio.size < _MIN_SAMPLES:
            audio = np.pad(audio, (0, _MIN_SAMPLES - audio.size))
        assert self._encoder is not None  # `start` has loaded it
        binding = self._encoder.binding()
        names = [*self.shape.cross_names(), "key_bias"]
        with engine_errors():
            binding.bind_cpu_input("audio", audio[None])
            for name in names:
                binding.bind_output(name)
            self._encoder.session.run_with_iobinding(binding)
        return dict(zip(names, binding.get_outputs(), strict=True))


class OnnxBatch:
    """Rows decoded together; see `engines.DecodeBatch`."""

    def __init__(self, opened: _Opened, shape: SpeechShape, cross: Cross, rows: int, capacity: int) -> None:
        self._opened, self._shape, self._capacity, self._rows = opened, shape, capacity, rows
        self._cross = cross
        self._total = np.zeros(rows, np.int32)
        size = (rows, shape.heads, capacity, shape.head_width)
        names = [f"{kind}_{i}" for i in range(shape.layers) for kind in ("key", "value")]
        self._past: dict[str, Float] = {name: np.zeros(size, np.float32) for name in names}
        self._alignment: Any = None
        self._binding = self._bind()

    @property
    def rows(self) -> int:
        return self._rows

    @property
    def length(self) -> int:
        """Tokens fed so far."""
        return int(self._total[0])

    def run(self, tokens: Int, logit_positions: Sequence[int]) -> Float:
        """See `engines.DecodeBatch.run`. Raises EngineError past the capacity."""
        if self.length + tokens.shape[1] > self._capacity:
            raise EngineError(f"{self.length} + {tokens.shape[1]} tokens exceed the capacity of {self._capacity}")
        self._total += np.int32(tokens.shape[1])
        binding = self._binding
        binding.bind_cpu_input("tokens", np.ascontiguousarray(tokens, np.int64))
        binding.bind_cpu_input("total_length", self._total)
        binding.bind_cpu_input("logit_positions", np.asarray(logit_positions, np.int64))
        binding.bind_output("logits")
        binding.bind_output("alignment")
        with engine_errors():
            self._opened.session.run_with_iobinding(binding)
        # Outputs come in the order of binding, and binding again keeps the place: these two follow the caches.
        *_, logits, self._alignment = binding.get_outputs()
        result: Float = logits.numpy()
        return result

    def alignment(self) -> Float:
        """See `engines.DecodeBatch.alignment`."""
        result: Float = self._alignment.numpy()
        return result

    def restart(self) -> None:
        """See `engines.DecodeBatch.restart`."""
        self._total[:] = 0

    def fork(self, rows: Sequence[int], *, past: bool) -> "OnnxBatch":
        """See `engines.DecodeBatch.fork`. Rows of one audio share it: the graph broadcasts a single row."""
        shared = next(iter(self._cross.values())).shape()[0] == 1 or list(rows) == list(range(self._rows))
        wanted = list(rows[:1]) if len(set(rows)) == 1 else list(rows)
        cross = self._cross if shared else {name: _take(value, wanted) for name, value in self._cross.items()}
        batch = OnnxBatch(self._opened, self._shape, cross, len(rows), self._capacity)
        if past:
            batch._total[:] = self._total[list(rows)]
            for name, cache in batch._past.items():
                cache[:, :, : self.length] = self._past[name][list(rows), :, : self.length]
        return batch

    def reorder(self, rows: Sequence[int]) -> None:
        """See `engines.DecodeBatch.reorder`."""
        if list(rows) == list(range(self._rows)):
            return
        for cache in self._past.values():
            cache[:, :, : self.length] = cache[list(rows), :, : self.length]

    def _bind(self) -> Any:
        """Bind what stays from run to run: the audio, and each cache as both past and present."""
        binding = self._opened.binding()
        with engine_errors():
            for name, value in self._cross.items():
                binding.bind_ortvalue_input(name, value)
            for name, cache in self._past.items():
                value = _value(cache)  # a view: the graph writes into `cache`
                binding.bind_ortvalue_input(f"past_{name}", value)
                binding.bind_ortvalue_output(f"present_{name}", value)
        return binding


def _value(array: Float) -> Any:
    return ort.OrtValue.ortvalue_from_numpy(array)


def _take(value: Any, rows: Sequence[int]) -> Any:
    return _value(np.ascontiguousarray(value.numpy()[list(rows)]))
