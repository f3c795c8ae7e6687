"""A checkpoint's tokens as GGUF has them: `tokenizer.ggml.*` and the chat template.

Byte-level BPE becomes llama.cpp's "gpt2" tokenizer, BPE with byte fallback its "llama" one. Others are refused.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from gguf import GGUFWriter, TokenType

from sottovoce_compiler.families import UnsupportedModelError
from sottovoce_compiler.lowerings.gguf import pieces
from sottovoce_compiler.lowerings.gguf.pretokenizer import identify
from sottovoce_compiler.lowerings.gguf.tokenizer_file import (
    TokenizerFile,
    read_tokenizer_file,
    special_ids,
    special_text,
)
from sottovoce_compiler.sources.checkpoint import Checkpoint

_PHI_KEEPS = ("<unk>", "<s>", "<|endoftext|>")  # after these a Phi-3 keeps space, after all others not
_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids; `ends` are all that end an answer, `end` first."""

    begin: int | None
    ends: tuple[int, ...]
    unknown: int | None
    padding: int | None
    adds_begin: bool
    adds_end: bool


@dataclass(frozen=True, slots=True)
class TokenTable:
    """`model` is llama.cpp's ("gpt2", "llama"), `pre` its pre-tokenizer. `types` are gguf's TokenType, one for each of
    `tokens`. `strips_after_special`: the source drops space after special tokens. `notes` say what differs."""

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...] | None
    merges: tuple[tuple[str, str], ...] | None
    space_prefix: bool
    special: SpecialTokens
    strips_after_special: bool
    notes: tuple[str, ...]


def token_table(checkpoint: Checkpoint, vocab_size: int) -> TokenTable:
    """The tokens of a checkpoint, as many as its embedding has rows.

    Raises SourceError for damaged or missing files, UnsupportedModelError for a tokenizer that llama.cpp would not
    follow.
    """
    tokenizer = read_tokenizer_file(checkpoint)
    whole = pieces.found_whole(tokenizer.added)
    tokens, types, notes = _listed(tokenizer, whole, vocab_size)
    strips, stripping = _stripping(tokenizer)
    notes += stripping
    if tokenizer.byte_level:
        notes += _normalizing(tokenizer)
        pre, different = identify(tokenizer.library(), tokenizer.name)
        notes += different
        scores, prefix, name, merges = None, False, pre.name, tokenizer.merges
    else:
        pieces.check_parts(tokenizer)
        by_piece = pieces.scores_of(tokenizer)
        prefix, different = pieces.space_prefix(
            tokenizer, by_piece, whole, strips, checkpoint.chat_template is not None
        )
        notes += different
        scores = tuple(by_piece.get(token, pieces.UNSCORED) for token in tokens)
        name, merges = "default", None
    return TokenTable(
        model="gpt2" if tokenizer.byte_level else "llama",
        pre=name,
        tokens=tuple(tokens),
        types=tuple(types),
        scores=scores,
        merges=merges,
        space_prefix=prefix,
        special=special_tokens(checkpoint, tokenizer, vocab_size),
        strips_after_special=bool(strips),
        notes=tuple(notes),
    )


def add_tokens(writer: GGUFWriter, table: TokenTable, checkpoint: Checkpoint) -> None:
    """Everything about tokens, and the chat template."""
    writer.add_tokenizer_model(table.model)
    writer.add_tokenizer_pre(table.pre)
    writer.add_token_list(table.tokens)
    writer.add_token_types(table.types)
    if table.scores is not None:
        writer.add_token_scores(table.scores)
    if table.merges is not None:
        writer.add_token_merges([f"{left} {right}" for left, right in table.merges])
    writer.add_add_space_prefix(table.space_prefix)
    _add_special(writer, table.special)
    if checkpoint.chat_template is not None:
        writer.add_chat_template(checkpoint.chat_template)


def _add_special(writer: GGUFWriter, special: SpecialTokens) -> None:
    # llama.cpp has an id of its own choice where none is given; the end is the harmless one.
    writer.add_bos_token_id(special.ends[0] if special.begin is None else special.begin)
    for token, add in zip(
        special.ends, (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id), strict=False
    ):
        add(token)
    if special.unknown is not None:
        writer.add_unk_token_id(special.unknown)
    if special.padding is not None:
        writer.add_pad_token_id(special.padding)
    writer.add_add_bos_token(special.adds_begin)
    writer.add_add_eos_token(special.adds_end)


def _listed(tokenizer: TokenizerFile, whole: dict[str, int], size: int) -> tuple[list[str], list[int], list[str]]:
    """Texts and types by id; ids that no file names are filled with unused ones."""
    texts: list[str | None] = [None] * size
    types = [int(TokenType.UNUSED)] * size
    dropped = 0
    for text, index in tokenizer.vocab.items():
        if index >= size:
            dropped += 1
            continue
        byte = not tokenizer.byte_level and text in _BYTES
        texts[index], types[index] = text, int(TokenType.BYTE if byte else TokenType.NORMAL)
    for token in tokenizer.added:
        if token.id >= size:
            dropped += token.text not in tokenizer.vocab
        elif tokenizer.byte_level or token.text in whole:
            kind = TokenType.CONTROL if token.special else TokenType.USER_DEFINED
            texts[token.id], types[token.id] = token.text, int(kind)
        elif texts[token.id] is None:
            texts[token.id], types[token.id] = token.text, int(TokenType.NORMAL)
    taken = {text for text in texts if text is not None}
    if len(taken) != sum(text is not None for text in texts) or "" in taken:
        twice = next((text for text in sorted(taken) if texts.count(text) > 1), "")
        raise UnsupportedModelError(f"{tokenizer.name}: two tokens are spelled {twice!r}; llama.cpp needs one")
    filled = [_filler(index, taken) if text is None else text for index, text in enumerate(texts)]
    notes = [f"{dropped} tokens have no row in the embedding and are left out"] if dropped else []
    return filled, types, notes


def _filler(index: int, taken: set[str]) -> str:
    text = f"[PAD{index}]"
    while text in taken:
        text = f"[{text}]"
    return text


def _stripping(tokenizer: TokenizerFile) -> tuple[frozenset[str], list[str]]:
    """The tokens after which space goes, if they are those of a Phi-3, all that llama.cpp can do; and notes."""
    before = [token.text for token in tokenizer.added if token.strips[0]]
    after = [token.text for token in tokenizer.added if token.strips[1]]
    notes = [f"the source drops space before {before[0]!r}; llama.cpp does not"] if before else []
    rest = {token.text for token in tokenizer.added} - set(after)
    as_phi = rest == set(_PHI_KEEPS) and "</s>" in after
    if after and not as_phi:
        notes.append(f"the source drops space after {after[0]!r}; llama.cpp does not")
    return frozenset(after if as_phi else ()), notes


def _normalizing(tokenizer: TokenizerFile) -> list[str]:
    parts = tokenizer.content.get("normalizer")
    if parts is None:
        return []
    if parts == {"type": "NFC"}:
        return ["the source composes characters (NFC) before it tokenizes; llama.cpp does not"]
    raise UnsupportedModelError(
        f"{tokenizer.name}: the tokenizer normalizes by {json.dumps(parts):.100}; NFC or nothing is supported"
    )


def special_tokens(checkpoint: Checkpoint, tokenizer: TokenizerFile, size: int) -> SpecialTokens:
    """The ids of a checkpoint's special tokens below `size`. Raises UnsupportedModelError where none ends text."""
    ids = tokenizer.ids()

    def one(key: str) -> int | None:
        text = special_text(checkpoint, key)
        listed = special_ids(checkpoint, f"{key}_id")
        found = ids.get(text) if text is not None else (listed[0] if listed else None)
        return found if found is not None and found < size else None

    first = one("eos_token")
    more = [token for token in special_ids(checkpoint, "eos_token_id") if token < size]
    ends = tuple(dict.fromkeys([*([first] if first is not None else []), *more]))
    if not ends:
        raise UnsupportedModelError(
            f"{checkpoint.name}: no token that ends text: tokenizer_config.json has no eos_token that the vocabulary "
            "has, nor generation_config.json or config.json an eos_token_id"
        )
    begin = one("bos_token")
    adds_begin, adds_end = _adds(checkpoint, tokenizer, begin, ends)
    return SpecialTokens(begin, ends, one("unk_token"), one("pad_token"), adds_begin, adds_end)


def _adds(
    checkpoint: Checkpoint, tokenizer: TokenizerFile, begin: int | None, ends: Sequence[int]
) -> tuple[bool, bool]:
    """Whether plain text gets a token before and after it: as tokenizer_config.json says, else as is done."""
    library = tokenizer.library()
    bare = library.encode("a", add_special_tokens=False).ids
    dressed = library.encode("a", add_special_tokens=True).ids
    at = next((i for i in range(len(dressed)) if dressed[i : i + len(bare)] == bare), 0)
    does = begin is not None and dressed[:at] == [begin], dressed[at + len(bare) :][:1] == list(ends[:1])
    says = checkpoint.tokenizer_config.get("add_bos_token"), checkpoint.tokenizer_config.get("add_eos_token")
    adds_begin, adds_end = (one if isinstance(one, bool) else other for one, other in zip(says, does, strict=True))
    return adds_begin and begin is not None, adds_end
