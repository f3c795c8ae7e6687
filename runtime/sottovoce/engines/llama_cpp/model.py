"""Opens a model file in llama.cpp, and contexts and adapters for it. Knows parameters and handles, not tokens."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sottovoce.engines.llama_cpp.layout import LOAD_WITHOUT_MMAP
from sottovoce.engines.llama_cpp.library import Library
from sottovoce.engines.llama_cpp.memory import Room
from sottovoce.errors import EngineError
from sottovoce.gguf import GgufFile

_MAP_ALIGNMENT = 32  # bytes: where weights must begin for llama.cpp to use them as they lie in the file


def open_model(library: Library, gguf: GgufFile) -> int:
    """The handle of the model. Raises EngineError with llama.cpp's reason.

    A GGUF within a bundle is opened there: `llama_model_load_from_file_ptr` reads the header from where the stream
    stands and counts every offset from the start of the file, which it maps whole; the pages of other members are given
    back once the weights are known. Bundles align their members to 4096, so that mapping is possible.
    """
    params = library.functions.llama_model_default_params()
    if gguf.data_offset % _MAP_ALIGNMENT:
        params.load_mode = LOAD_WITHOUT_MMAP
    library.forget_errors()
    if sys.platform == "win32":  # a stream of one C runtime cannot be given to another
        if gguf.offset:
            raise EngineError(f"{gguf.path}: on Windows a model is opened from a plain file only; unzip the bundle")
        handle = library.functions.llama_model_load_from_file(str(gguf.path).encode(), params)
    else:
        with _stream(gguf) as stream:
            handle = library.functions.llama_model_load_from_file_ptr(stream, params)
    if not handle:
        raise library.error(f"{gguf.path}: llama.cpp could not load the model")
    return int(handle)


def open_context(library: Library, model: int, room: Room, threads: int, *, embeddings: bool = False) -> int:
    """The handle of a context with room for one sequence. Raises EngineError, also where llama.cpp took other settings
    than were meant (then its structures are not what we think)."""
    functions = library.functions
    params = functions.llama_context_default_params()
    params.n_ctx, params.n_seq_max = room.context, 1
    params.n_batch = params.n_ubatch = room.batch
    params.n_outputs_max = room.outputs
    params.n_threads = params.n_threads_batch = threads
    params.embeddings = embeddings
    params.swa_full = True  # so that a sequence of Gemma's can be cut back, too
    library.forget_errors()
    context = functions.llama_init_from_model(model, params)
    if not context:
        raise library.error(f"llama.cpp could not make a context of {room.context} positions")
    wanted = (room.batch, threads)
    if (functions.llama_n_batch(context), functions.llama_n_threads(context)) != wanted or (
        functions.llama_n_ctx(context) < room.context
    ):
        functions.llama_free(context)
        raise EngineError(f"{library.name} did not take its settings as given: this build is not known here")
    return int(context)


def open_adapter(library: Library, model: int, adapter: GgufFile) -> int:
    """The handle of a LoRA adapter. Raises EngineError with llama.cpp's reason."""
    library.forget_errors()
    handle = library.functions.llama_adapter_lora_init(model, os.fsencode(adapter.path))
    if not handle:
        raise library.error(f"{adapter.path}: llama.cpp could not load the adapter")
    return int(handle)


@contextmanager
def _stream(gguf: GgufFile) -> Iterator[int]:
    """A C `FILE *` that stands at the GGUF's first byte."""
    libc = ctypes.CDLL(None)
    libc.fdopen.restype, libc.fdopen.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_char_p)
    libc.fclose.argtypes = (ctypes.c_void_p,)
    try:
        descriptor = os.open(gguf.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise EngineError(f"{gguf.path}: {error.strerror or error}") from None
    os.lseek(descriptor, gguf.offset, os.SEEK_SET)  # a stream begins where its descriptor stands
    stream = libc.fdopen(descriptor, b"rb")
    if not stream:
        os.close(descriptor)
        raise EngineError(f"{gguf.path}: cannot be opened as a C stream")
    try:
        yield stream
    finally:
        libc.fclose(stream)  # what was mapped stays mapped
