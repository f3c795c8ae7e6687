"""What each precision loses: KL divergence, perplexity and likeliest tokens against the source in torch, same text.

llama.cpp keeps keys and values in float16 by default, and so does the runtime; what a float32 file loses beside that is
seen with a cache in float32, which only this benchmark asks for.
"""

import ctypes
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from chat_plan import ChatModel, Plan, read_bundle

from chat_stages import Json, say
from chat_stages.drafts import draft
from sottovoce.chat.chat import Chat
from sottovoce.engines.llama_cpp.library import load_library
from sottovoce.engines.llama_cpp.memory import Room
from sottovoce.engines.llama_cpp.model import open_model
from sottovoce.engines.llama_cpp.sequence import LlamaSequence
from sottovoce.gguf import read_gguf
from sottovoce_compiler.report.causal_source import CausalSource
from sottovoce_compiler.report.chat_measure import artifact_logits, source_tokenizer
from sottovoce_compiler.report.language import WINDOW, Float, LanguageScores, Logits, compare
from sottovoce_compiler.report.texts import builtin_text, read_texts
from sottovoce_compiler.sources import resolve
from sottovoce_compiler.sources.checkpoint import Checkpoint

EXACT, EXACT_CACHE = "gguf fp32", "gguf fp32, cache in float32"
_FLOAT32 = 0  # ggml's number of the type
_KEPT_BYTES = 1 << 30


class Remembered:
    """Logits that are computed once for each window of tokens, for as long as all of them take no more than `most`
    bytes; what comes after is computed again every time."""

    def __init__(self, logits: Logits, most: int = _KEPT_BYTES) -> None:
        self._logits, self._left = logits, most
        self._known: dict[tuple[int, ...], Float] = {}

    def __call__(self, tokens: Sequence[int]) -> Float:
        key = tuple(tokens)
        if (known := self._known.get(key)) is not None:
            return known
        found = self._logits(tokens)
        if found.nbytes <= self._left:
            self._known[key] = found
            self._left -= found.nbytes
        return found


def run(plan: Plan, model: ChatModel) -> Json:
    """Scores of every precision; each is packed, opened and measured as a device opens it."""
    import torch

    torch.set_num_threads(plan.threads)
    checkpoint = resolve(model.spec)
    texts = read_texts(plan.text) if plan.text else builtin_text()
    tokenizer = source_tokenizer(checkpoint)
    whole = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts.passages]
    passages = shortened(whole, plan.text_tokens)
    source = Remembered(CausalSource(checkpoint).logits)
    found: Json = {"text": texts.name, "text_sha256": texts.sha256, "precisions": {}}
    wanted = [*(("gguf", one) for one in plan.precisions), *(("onnx", one) for one in plan.onnx_precisions)]
    for form, precision in wanted:
        say(f"  {form} {precision}")
        found["precisions"] |= _measured(plan, checkpoint, form, precision, passages, source)
    return found


def shortened(passages: Sequence[Sequence[int]], most: int) -> list[Sequence[int]]:
    """The first `most` tokens of all."""
    kept: list[Sequence[int]] = []
    for passage in passages:
        kept.append(passage[:most])
        most -= len(kept[-1])
    return [passage for passage in kept if passage]


def _measured(
    plan: Plan,
    checkpoint: Checkpoint,
    form: str,
    precision: str,
    passages: Sequence[Sequence[int]],
    source: Callable[[Sequence[int]], Float],
) -> Json:
    found: Json = {}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        bundle = draft(checkpoint, form, precision, Path(folder))
        made_s = time.perf_counter() - began
        with Chat(bundle, threads=plan.threads) as chat:
            chat.load()
            ready = chat._ready
            bos = ready.engine.vocabulary.bos if ready.engine.vocabulary.adds_bos else None
            scores = compare(source, artifact_logits(ready), passages, bos)
            vocabulary = ready.engine.vocabulary.size
        named = {"bytes": bundle.stat().st_size, "made_s": round(made_s, 1)}
        found[f"{form} {precision}"] = {**named, **_json(scores)}
        if f"{form} {precision}" == EXACT:
            with _exact_cache(bundle, vocabulary, plan.threads) as logits:
                found[EXACT_CACHE] = _json(compare(source, logits, passages, bos))
    return found


def _json(scores: LanguageScores | None) -> Json:
    if scores is None:
        raise RuntimeError("the text is too short to measure anything on: give more with --text")
    return scores.to_json()


@contextmanager
def _exact_cache(bundle: Path, vocabulary: int, threads: int) -> Iterator[Logits]:
    """The GGUF of a bundle with keys and values in float32, attention as its formula."""
    library = load_library()
    functions = library.functions
    where = read_bundle(bundle).gguf()
    model = open_model(library, read_gguf(where.path, where.offset, None if where.size < 0 else where.size))
    room = Room(WINDOW, WINDOW, 32)
    params = functions.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = WINDOW
    params.n_outputs_max, params.n_threads, params.n_threads_batch = room.outputs, threads, threads
    params.type_k = params.type_v = _FLOAT32
    params.flash_attn_type, params.swa_full = 0, True
    context = functions.llama_init_from_model(model, params)
    if not context:
        raise library.error("llama.cpp could not make a context with a cache in float32")
    sequence = LlamaSequence(library, context, room, vocabulary)

    def logits(tokens: Sequence[int]) -> Float:
        sequence.truncate(0)
        return sequence.evaluate(tokens, len(tokens))

    try:
        yield logits
    finally:
        sequence.close()
        functions.llama_free(ctypes.c_void_p(context))
        functions.llama_model_free(model)
