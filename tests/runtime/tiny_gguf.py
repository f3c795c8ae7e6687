"""A tiny random language model as a GGUF file, and a LoRA adapter for it: made in milliseconds with the `gguf` package.

Llama's architecture: two layers of width 64, four heads over two of keys and values, in float32. Its vocabulary is
byte-level BPE: the 256 bytes, some merges of English, and the special tokens of ChatML. It speaks nonsense, the same
nonsense for the same `seed`.
"""

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

WIDTH, FFN, LAYERS, HEADS, KV_HEADS, HEAD_WIDTH = 64, 128, 2, 4, 2, 16
END_OF_TEXT, IM_START, IM_END, UNUSED = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|unused|>"
SPECIAL = (END_OF_TEXT, IM_START, IM_END, UNUSED)  # the last tokens of the vocabulary, in this order
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_WORDS = ("the", "and", "ing", "her", "hat", "was", "that", "he said", " of", " to", " a", " in", "you", "er", "\n\n")


def tiny_gguf(
    path: Path,
    seed: int = 0,
    template: str | None = CHATML,
    context: int = 256,
    *,
    pooling: gguf.PoolingType | None = None,
    adds_bos: bool = False,
) -> Path:
    """Write the model to `path` and give it back. `template` None leaves the chat template out; `context` is the
    number of positions it says it was trained for; `pooling` makes it a model for embeddings."""
    tokens, merges = tiny_vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(len(tokens))
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FFN)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    _add_vocabulary(writer, tokens, merges, adds_bos)
    if template is not None:
        writer.add_chat_template(template)
    for name, values in _weights(seed, len(tokens)).items():
        writer.add_tensor(name, values)
    return _write(writer, path)


def tiny_lora(
    path: Path,
    seed: int = 0,
    *,
    rank: int = 4,
    arch: str = "llama",
    width: int = WIDTH,
    pin: Sequence[str] = (),
    spread: float = 0.3,
) -> Path:
    """Write a LoRA adapter for q and down of every layer to `path`; another `arch` or `width` fits no tiny model. `pin`
    has the SHA-256 of its base's weights, `spread` is how far its values lie."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, arch)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(2 * rank))
    if pin:
        writer.add_array("sottovoce.base.sha256", list(pin))
    for layer in range(LAYERS):
        for name, rows, columns in (("attn_q", HEADS * HEAD_WIDTH, width), ("ffn_down", WIDTH, FFN)):
            for half, shape in (("lora_a", (rank, columns)), ("lora_b", (rows, rank))):
                values = random.normal(0, spread, shape).astype(np.float32)
                writer.add_tensor(f"blk.{layer}.{name}.weight.{half}", values)
    return _write(writer, path)


def tiny_vocabulary() -> tuple[list[str], list[str]]:
    """Tokens in GPT-2's spelling of bytes, the special ones last, and the merges that make the longer ones."""
    spelling = _byte_spelling()
    tokens, merges = [spelling[byte] for byte in range(256)], []
    for word in _WORDS:
        begun, *rest = (spelling[byte] for byte in word.encode())
        for letter in rest:
            if begun + letter not in tokens:
                tokens.append(begun + letter)
                merges.append(f"{begun} {letter}")
            begun += letter
    return [*tokens, *SPECIAL], merges


def _byte_spelling() -> dict[int, str]:
    """GPT-2's printable stand-in for every byte: those that print are themselves, the others follow from 256 on."""
    printing = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    return {byte: chr(byte) for byte in printing} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _add_vocabulary(writer: gguf.GGUFWriter, tokens: list[str], merges: list[str], adds_bos: bool) -> None:
    normal = len(tokens) - len(SPECIAL)
    kinds = [gguf.TokenType.NORMAL] * normal + [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.UNUSED]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index(IM_START))
    writer.add_eos_token_id(tokens.index(IM_END))
    writer.add_add_bos_token(adds_bos)


def _weights(seed: int, vocabulary: int) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, 0.2, shape).astype(np.float32)

    weights = {"token_embd.weight": normal(vocabulary, WIDTH), "output_norm.weight": 1 + normal(WIDTH)}
    for layer in range(LAYERS):
        for name, *shape in (
            ("attn_norm", WIDTH),
            ("attn_q", HEADS * HEAD_WIDTH, WIDTH),
            ("attn_k", KV_HEADS * HEAD_WIDTH, WIDTH),
            ("attn_v", KV_HEADS * HEAD_WIDTH, WIDTH),
            ("attn_output", WIDTH, HEADS * HEAD_WIDTH),
            ("ffn_norm", WIDTH),
            ("ffn_gate", FFN, WIDTH),
            ("ffn_up", FFN, WIDTH),
            ("ffn_down", WIDTH, FFN),
        ):
            weights[f"blk.{layer}.{name}.weight"] = normal(*shape) + (1 if name.endswith("norm") else 0)
    return weights


def _write(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
