"""llama.cpp's structures and functions as ctypes declares them, and the proof that a library has the same.

The C API passes structures by value and has changed them without notice, so a library is called only once the defaults
that it fills in stand where a layout known here has them (`declare`). Two are: llama.cpp 0.5.0 (llama.h of
llama-cpp-python 0.3.36) and 0.6.0-dev (xllamacpp 2026.10.11549), which has one pointer more in its context parameters.
Both parameter structures end in room to spare: what a library returns is changed in the fields known here and given
back with all the rest, so a field that was added at the end keeps the default its library has for it.
"""

import ctypes
from collections.abc import Mapping
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int8, c_int32, c_size_t, c_uint8, c_uint32, c_void_p
from typing import Any

_ROOM = 512  # bytes

LOAD_WITHOUT_MMAP = 0  # load_mode; by default a file is mapped where the system can


class ModelParams(ctypes.Structure):
    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_uint8),  # c_uint8 and not c_bool: a byte that is neither 0 nor 1 is to be seen
        ("check_tensors", c_uint8),
        ("use_extra_bufts", c_uint8),
        ("no_host", c_uint8),
        ("no_alloc", c_uint8),
        ("load_mtp", c_uint8),
        ("room", c_uint8 * _ROOM),
    )


_CONTEXT_FIELDS = (
    ("n_ctx", c_uint32),
    ("n_batch", c_uint32),
    ("n_ubatch", c_uint32),
    ("n_seq_max", c_uint32),
    ("n_rs_seq", c_uint32),
    ("n_outputs_max", c_uint32),
    ("n_outputs_max_per_seq", c_uint32),
    ("n_threads", c_int32),
    ("n_threads_batch", c_int32),
    ("ctx_type", c_int32),
    ("rope_scaling_type", c_int32),
    ("pooling_type", c_int32),
    ("attention_type", c_int32),
    ("flash_attn_type", c_int32),
    ("rope_freq_base", c_float),
    ("rope_freq_scale", c_float),
    ("yarn_ext_factor", c_float),
    ("yarn_attn_factor", c_float),
    ("yarn_beta_fast", c_float),
    ("yarn_beta_slow", c_float),
    ("yarn_orig_ctx", c_uint32),
    ("defrag_thold", c_float),
    ("cb_eval", c_void_p),
    ("cb_eval_user_data", c_void_p),
    ("type_k", c_int32),
    ("type_v", c_int32),
)
_CONTEXT_FIELDS_AFTER = (
    ("embeddings", c_uint8),
    ("offload_kqv", c_uint8),
    ("no_perf", c_uint8),
    ("op_offload", c_uint8),
    ("swa_full", c_uint8),
    ("kv_unified", c_uint8),
    ("samplers", c_void_p),
    ("n_samplers", c_size_t),
    ("ctx_other", c_void_p),
    ("room", c_uint8 * _ROOM),
)


class ContextParams05(ctypes.Structure):
    _fields_ = (*_CONTEXT_FIELDS, ("callbacks", c_void_p * 2), *_CONTEXT_FIELDS_AFTER)


class ContextParams06(ctypes.Structure):
    _fields_ = (*_CONTEXT_FIELDS, ("callbacks", c_void_p * 3), *_CONTEXT_FIELDS_AFTER)


class Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    )


LogCallback = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)

# What llama_model_default_params and llama_context_default_params fill in (llama-model.cpp, llama-context.cpp).
MODEL_DEFAULTS: Mapping[str, Any] = {
    **dict.fromkeys(("devices", "tensor_buft_overrides", "tensor_split", "progress_callback")),
    **dict.fromkeys(("progress_callback_user_data", "kv_overrides")),
    **{"n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1, "main_gpu": 0},
    **{"vocab_only": 0, "check_tensors": 0, "use_extra_bufts": 1, "no_host": 0, "no_alloc": 0, "load_mtp": 0},
}
CONTEXT_DEFAULTS: Mapping[str, Any] = {
    **{"n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_rs_seq": 0, "n_outputs_max": 0},
    **{"n_outputs_max_per_seq": 1, "n_threads": 4, "n_threads_batch": 4, "ctx_type": 0, "rope_scaling_type": -1},
    **{"pooling_type": -1, "attention_type": -1, "flash_attn_type": -1, "rope_freq_base": 0.0, "rope_freq_scale": 0.0},
    **{"yarn_ext_factor": -1.0, "yarn_attn_factor": -1.0, "yarn_beta_fast": -1.0, "yarn_beta_slow": -1.0},
    **{"yarn_orig_ctx": 0, "defrag_thold": -1.0, "cb_eval": None, "cb_eval_user_data": None, "type_k": 1, "type_v": 1},
    **{"embeddings": 0, "offload_kqv": 1, "no_perf": 1, "op_offload": 1, "swa_full": 1, "kv_unified": 0},
    **{"samplers": None, "n_samplers": 0, "ctx_other": None},
}

# Every function that is called: name -> what it returns, what it takes. Handles are pointers that nothing looks into.
_TOKENS = POINTER(c_int32)
FUNCTIONS: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_backend_init": (None, ()),
    "llama_log_set": (None, (c_void_p, c_void_p)),
    "llama_model_default_params": (ModelParams, ()),
    "llama_context_default_params": (ContextParams06, ()),
    "llama_batch_init": (Batch, (c_int32, c_int32, c_int32)),
    "llama_batch_free": (None, (Batch,)),
    "llama_model_load_from_file": (c_void_p, (c_char_p, ModelParams)),
    "llama_model_load_from_file_ptr": (c_void_p, (c_void_p, ModelParams)),
    "llama_model_free": (None, (c_void_p,)),
    "llama_model_get_vocab": (c_void_p, (c_void_p,)),
    "llama_model_n_embd_out": (c_int32, (c_void_p,)),
    "llama_init_from_model": (c_void_p, (c_void_p, ContextParams06)),
    "llama_free": (None, (c_void_p,)),
    "llama_n_ctx": (c_uint32, (c_void_p,)),
    "llama_n_batch": (c_uint32, (c_void_p,)),
    "llama_n_ubatch": (c_uint32, (c_void_p,)),
    "llama_n_threads": (c_int32, (c_void_p,)),
    "llama_pooling_type": (c_int32, (c_void_p,)),
    "llama_decode": (c_int32, (c_void_p, Batch)),
    "llama_get_logits_ith": (c_void_p, (c_void_p, c_int32)),
    "llama_get_embeddings_seq": (c_void_p, (c_void_p, c_int32)),
    "llama_get_memory": (c_void_p, (c_void_p,)),
    "llama_memory_clear": (None, (c_void_p, c_bool)),
    "llama_memory_seq_rm": (c_bool, (c_void_p, c_int32, c_int32, c_int32)),
    "llama_memory_seq_pos_max": (c_int32, (c_void_p, c_int32)),
    "llama_state_seq_get_size": (c_size_t, (c_void_p, c_int32)),
    "llama_state_seq_get_data": (c_size_t, (c_void_p, c_void_p, c_size_t, c_int32)),
    "llama_state_seq_set_data": (c_size_t, (c_void_p, c_void_p, c_size_t, c_int32)),
    "llama_adapter_lora_init": (c_void_p, (c_void_p, c_char_p)),
    "llama_adapter_lora_free": (None, (c_void_p,)),
    "llama_set_adapters_lora": (c_int32, (c_void_p, POINTER(c_void_p), c_size_t, POINTER(c_float))),
    "llama_vocab_n_tokens": (c_int32, (c_void_p,)),
    "llama_vocab_bos": (c_int32, (c_void_p,)),
    "llama_vocab_get_add_bos": (c_bool, (c_void_p,)),
    "llama_vocab_is_eog": (c_bool, (c_void_p, c_int32)),
    "llama_vocab_is_control": (c_bool, (c_void_p, c_int32)),
    "llama_tokenize": (c_int32, (c_void_p, c_char_p, c_int32, _TOKENS, c_int32, c_bool, c_bool)),
    "llama_token_to_piece": (c_int32, (c_void_p, c_int32, c_void_p, c_int32, c_int32, c_bool)),
}


def declare(functions: ctypes.CDLL) -> str | None:
    """Declare every function of the library; what it has that is not as it is known here, or None.

    Until all agrees nothing is called but functions that take no argument and `llama_batch_init`, which takes numbers.
    """
    for name, (result, arguments) in FUNCTIONS.items():
        try:
            function = getattr(functions, name)
        except AttributeError:
            return f"it has no {name}"
        function.restype, function.argtypes = result, arguments
    if (differs := _difference(functions.llama_model_default_params(), MODEL_DEFAULTS)) is not None:
        return differs
    for layout in (ContextParams05, ContextParams06):
        functions.llama_context_default_params.restype = layout
        functions.llama_init_from_model.argtypes = (c_void_p, layout)
        if (differs := _difference(functions.llama_context_default_params(), CONTEXT_DEFAULTS)) is None:
            break
    return differs or _batch_difference(functions)


def _difference(found: ctypes.Structure, expected: Mapping[str, Any]) -> str | None:
    for field, value in expected.items():
        if getattr(found, field) != value:
            return f"the default of {field} is {getattr(found, field)}, expected {value}"
    return None


def _batch_difference(functions: ctypes.CDLL) -> str | None:
    batch: Batch = functions.llama_batch_init(1, 0, 1)
    arrays = (batch.token, batch.pos, batch.n_seq_id, batch.seq_id, batch.logits)
    if batch.n_tokens != 0 or batch.embd or not all(arrays):
        return "a batch has another layout"
    functions.llama_batch_free(batch)
    return None
