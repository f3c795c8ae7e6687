"""llama.cpp by itself: the shortest loop over its C API, llama_decode and llama_sampler_sample and nothing else.

Tokens in, tokens out: no text is made of them, nothing is looked at. Same library, same file, same threads as ours; the
C structures are as the runtime has checked them. The samplers, which the runtime does not use, are declared here.
"""

import ctypes
import time
from collections.abc import Mapping
from ctypes import POINTER, c_float, c_int32, c_size_t, c_uint8, c_uint32, c_void_p

from peers.chat import Answered, Made, Question, Sampling, steps
from sottovoce.engines.llama_cpp.engine import BATCH, OUTPUTS
from sottovoce.engines.llama_cpp.layout import Batch
from sottovoce.engines.llama_cpp.library import Library, load_library
from sottovoce.engines.llama_cpp.memory import Room
from sottovoce.engines.llama_cpp.model import open_context, open_model
from sottovoce.gguf import read_gguf


class _ChainParams(ctypes.Structure):
    _fields_ = (("no_perf", c_uint8),)


_SAMPLERS = {
    "llama_batch_get_one": (Batch, (POINTER(c_int32), c_int32)),
    "llama_sampler_chain_default_params": (_ChainParams, ()),
    "llama_sampler_chain_init": (c_void_p, (_ChainParams,)),
    "llama_sampler_chain_add": (None, (c_void_p, c_void_p)),
    "llama_sampler_init_greedy": (c_void_p, ()),
    "llama_sampler_init_top_k": (c_void_p, (c_int32,)),
    "llama_sampler_init_top_p": (c_void_p, (c_float, c_size_t)),
    "llama_sampler_init_min_p": (c_void_p, (c_float, c_size_t)),
    "llama_sampler_init_temp": (c_void_p, (c_float,)),
    "llama_sampler_init_dist": (c_void_p, (c_uint32,)),
    "llama_sampler_sample": (c_int32, (c_void_p, c_void_p, c_int32)),
    "llama_sampler_free": (None, (c_void_p,)),
}


class LlamaLoop:
    """`own_batches` takes llama.cpp's defaults for how many tokens are run at once (512 of 2048) instead of ours."""

    def __init__(self, made: Made, own_batches: bool) -> None:
        self._made, self._own_batches = made, own_batches
        self._library: Library = load_library()
        for name, (result, arguments) in _SAMPLERS.items():
            function = getattr(self._library.functions, name)  # AttributeError where a binding hides its samplers
            function.restype, function.argtypes = result, arguments
        self._model = self._context = self._batch = 0

    def load(self) -> None:
        where, made = self._made.bundle.gguf(), self._made
        gguf = read_gguf(where.path, where.offset, None if where.size < 0 else where.size)
        self._model = open_model(self._library, gguf)
        if self._own_batches:
            self._batch = 2048
            self._context = self._default_context()
        else:
            self._batch = min(BATCH, made.context)
            room = Room(made.context, self._batch, min(OUTPUTS, self._batch))
            self._context = open_context(self._library, self._model, room, made.threads)

    def _default_context(self) -> int:
        functions = self._library.functions
        params = functions.llama_context_default_params()
        params.n_ctx = self._made.context
        params.n_threads = params.n_threads_batch = self._made.threads
        found = functions.llama_init_from_model(self._model, params)
        if not found:
            raise self._library.error("llama.cpp could not make a context")
        return int(found)

    def answer(self, question: Question, tokens: int, sampling: Sampling | None) -> Answered:
        functions, context = self._library.functions, self._context
        functions.llama_memory_clear(functions.llama_get_memory(context), False)
        decode, sample, batch_of = (
            functions.llama_decode,
            functions.llama_sampler_sample,
            functions.llama_batch_get_one,
        )
        sampler = self._sampler(sampling)
        prompt, one = (c_int32 * len(question.tokens))(*question.tokens), (c_int32 * 1)()
        began = time.perf_counter()
        for start in range(0, len(prompt), self._batch):
            part = (c_int32 * min(self._batch, len(prompt) - start)).from_buffer(prompt, 4 * start)
            self._check(decode(context, batch_of(part, len(part))))
        token = sample(sampler, context, -1)
        first = time.perf_counter()
        clock = [first]
        for _ in range(tokens - 1):
            one[0] = token
            self._check(decode(context, batch_of(one, 1)))
            token = sample(sampler, context, -1)
            clock.append(time.perf_counter())
        functions.llama_sampler_free(sampler)
        return Answered(first - began, clock[-1] - first, tokens, tokens, steps(clock))

    def _check(self, status: int) -> None:
        if status:
            raise self._library.error(f"llama_decode gave {status}")

    def _sampler(self, sampling: Sampling | None) -> int:
        functions = self._library.functions
        chain: int = functions.llama_sampler_chain_init(functions.llama_sampler_chain_default_params())
        if sampling is None:
            made = [functions.llama_sampler_init_greedy()]
        else:
            made = [
                functions.llama_sampler_init_top_k(sampling.top_k),
                functions.llama_sampler_init_top_p(sampling.top_p, 1),
                functions.llama_sampler_init_min_p(sampling.min_p, 1),
                functions.llama_sampler_init_temp(sampling.temperature),
                functions.llama_sampler_init_dist(sampling.seed),
            ]
        for sampler in made:
            functions.llama_sampler_chain_add(chain, sampler)  # the chain frees them
        return chain

    def describe(self) -> Mapping[str, str]:
        functions = self._library.functions
        sizes = (functions.llama_n_batch(self._context), functions.llama_n_ubatch(self._context))
        return {"engine": self._library.name, "batch": f"{sizes[0]} in parts of {sizes[1]}"}

    def close(self) -> None:
        if self._context:
            self._library.functions.llama_free(self._context)
            self._library.functions.llama_model_free(self._model)
            self._context = self._model = 0


def build(made: Made, own_batches: bool) -> LlamaLoop:
    """The loop over the GGUF of one bundle."""
    return LlamaLoop(made, own_batches)
