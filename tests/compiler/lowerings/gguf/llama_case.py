"""llama.cpp itself, by the runtime's loader, for what files are to be compared with."""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sottovoce.engines.llama_cpp.library import load_library
from sottovoce.errors import MissingExtraError


def llama() -> Any:
    """llama.cpp's functions; skips the test where no binding is installed."""
    try:
        return load_library().functions
    except MissingExtraError as error:
        pytest.skip(f"comparing with llama.cpp needs a binding of it: {error}")


@contextmanager
def loaded(path: Path, *, vocab_only: bool = False) -> Iterator[tuple[Any, Any]]:
    functions = llama()
    params = functions.llama_model_default_params()
    params.vocab_only = int(vocab_only)
    params.n_gpu_layers = 0
    model = functions.llama_model_load_from_file(str(path).encode(), params)
    assert model, str(load_library().error(f"llama.cpp does not load {path.name}"))
    try:
        yield functions, model
    finally:
        functions.llama_model_free(model)


def logits(
    path: Path, tokens: Sequence[int], context: int, adapters: Mapping[Path, float] = MappingProxyType({})
) -> NDArray[np.float32]:
    """(tokens, vocabulary) float32, with a float32 cache and one thread; `adapters` with their scales."""
    with loaded(path) as (functions, model):
        params = functions.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = context, max(len(tokens), 32), max(len(tokens), 32)
        params.n_threads = params.n_threads_batch = 1
        params.type_k = params.type_v = 0
        params.flash_attn_type = 0
        running = functions.llama_init_from_model(model, params)
        assert running
        _attach(functions, model, running, adapters)
        size = functions.llama_vocab_n_tokens(functions.llama_model_get_vocab(model))
        batch = functions.llama_batch_init(len(tokens), 0, 1)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
            batch.seq_id[i][0] = 0
        batch.n_tokens = len(tokens)
        try:
            assert functions.llama_decode(running, batch) == 0
            rows = [functions.llama_get_logits_ith(running, i) for i in range(len(tokens))]
            return np.stack([np.ctypeslib.as_array((ctypes.c_float * size).from_address(row)).copy() for row in rows])
        finally:
            functions.llama_batch_free(batch)
            functions.llama_free(running)


def _attach(functions: Any, model: Any, running: Any, adapters: Mapping[Path, float]) -> None:
    handles = [functions.llama_adapter_lora_init(model, str(path).encode()) for path in adapters]
    assert all(handles), str(load_library().error("llama.cpp does not load an adapter"))
    count = len(handles)
    scales = (ctypes.c_float * count)(*adapters.values())
    assert functions.llama_set_adapters_lora(running, (ctypes.c_void_p * count)(*handles), count, scales) == 0


@contextmanager
def vocabulary(path: Path) -> Iterator["LlamaVocabulary"]:
    with loaded(path, vocab_only=True) as (functions, model):
        yield LlamaVocabulary(functions, functions.llama_model_get_vocab(model))


class LlamaVocabulary:
    def __init__(self, functions: Any, vocab: Any) -> None:
        self._functions, self._vocab = functions, vocab

    def encode(self, text: str, *, special: bool = True, dress: bool = False) -> list[int]:
        """The tokens of text; `special`: special tokens are parsed, `dress`: with what is put before and after."""
        data = text.encode()
        room = (ctypes.c_int32 * (len(data) + 8))()
        count = self._functions.llama_tokenize(self._vocab, data, len(data), room, len(room), dress, special)
        assert count >= 0
        return list(room[:count])

    def ends(self, token: int) -> bool:
        return bool(self._functions.llama_vocab_is_eog(self._vocab, token))
