"""A tokenizer.json that was made of a SentencePiece model, as llama.cpp's "llama" tokenizer: pieces with scores.

A merge's place becomes the score of what it makes. llama.cpp joins any two pieces whose sum is a piece, so the merges
must be all there are; and since its rule is not the source's word for word, a fixed text is tokenized by both.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sottovoce_compiler.families import UnsupportedModelError
from sottovoce_compiler.lowerings.gguf.pretokenizer import PROBE
from sottovoce_compiler.lowerings.gguf.sentencepiece import SPACE, ScoredPieces
from sottovoce_compiler.lowerings.gguf.tokenizer_file import Added, TokenizerFile

UNSCORED = -1_000_000.0  # of pieces that no merge makes: below every other
_RUNS = "".join(f"{character * count}x" for character in (" ", "\n", "\t") for count in (*range(1, 33), 47, 64))
_LONGER = f"{PROBE}{_RUNS}<s> </s> <0x41> {SPACE}literal{SPACE} a{SPACE}b Ελληνικά {{}}"


def check_parts(tokenizer: TokenizerFile) -> None:
    """Refuses by name the parts of a tokenizer.json that would change text in a way llama.cpp does not."""
    if tokenizer.content["model"].get("byte_fallback") is not True:
        raise UnsupportedModelError(
            f"{tokenizer.name}: the tokenizer is neither byte-level nor falls back to bytes; llama.cpp has no such BPE"
        )
    for part in _parts(tokenizer.content.get("normalizer")):
        plain = (
            part.get("type") == "Replace" and part.get("pattern") == {"String": " "} and part.get("content") == SPACE
        )
        if not plain and (part.get("type"), part.get("prepend")) != ("Prepend", SPACE):
            raise UnsupportedModelError(
                f"{tokenizer.name}: the tokenizer normalizes by {part.get('type')!r}; only Prepend and Replace of "
                "spaces are supported"
            )


def scores_of(tokenizer: TokenizerFile) -> dict[str, float]:
    """Piece -> score, from the place of the first merge that makes it."""
    made: dict[str, int] = {}
    for place, (left, right) in enumerate(tokenizer.merges):
        made.setdefault(left + right, place)
    scores = {piece: UNSCORED for piece in tokenizer.vocab}
    scores |= {piece: -float(order) for order, piece in enumerate(sorted(made, key=made.__getitem__))}
    return scores


def space_prefix(
    tokenizer: TokenizerFile,
    scores: Mapping[str, float],
    whole: Mapping[str, int],
    strips: frozenset[str],
    chats: bool,
) -> tuple[bool, tuple[str, ...]]:
    """Whether llama.cpp is to put a space before text, and notes; decided by what the source does.

    It does so at the beginning and after every special token, or nowhere. A source that does it at the beginning only
    is followed in what a chat template renders, which begins with a special token.
    """
    _check_closed(tokenizer)
    library = tokenizer.library()
    special = next((token.text for token in tokenizer.added if token.special), "")
    texts = {"plain": _LONGER, "chat": f"{special}{PROBE}{special}Hello {special} there{special}\nyou\n{special}"}
    source = {key: library.encode(text, add_special_tokens=False).ids for key, text in texts.items()}
    alike = {}
    for prefix in (True, False):
        pieces = ScoredPieces(tokenizer.ids(), {**dict.fromkeys(whole, UNSCORED), **scores}, whole, prefix, strips)
        alike[prefix] = {key for key, text in texts.items() if pieces.encode(text) == source[key]}
    for prefix in (True, False):
        if alike[prefix] == set(texts):
            return prefix, ()
    if chats and "chat" in alike[False]:
        return False, ("a text that does not begin with a special token is tokenized without the source's first space",)
    raise UnsupportedModelError(
        f"{tokenizer.name}: the tokenizer's merges make other tokens of a fixed text than llama.cpp's SentencePiece "
        "would; compile for a target that runs ONNX"
    )


def _check_closed(tokenizer: TokenizerFile) -> None:
    listed = set(tokenizer.merges)
    outside = {token.text for token in tokenizer.added}
    for piece in tokenizer.vocab:
        if piece in outside or (len(piece) == 6 and piece.startswith("<0x")):
            continue
        for at in range(1, len(piece)):
            pair = piece[:at], piece[at:]
            if pair in listed or pair[0] not in tokenizer.vocab or pair[1] not in tokenizer.vocab:
                continue
            if outside.isdisjoint(pair):
                raise UnsupportedModelError(
                    f"{tokenizer.name}: {pair[0]!r} and {pair[1]!r} are tokens and so is their sum, but no merge joins "
                    "them; llama.cpp's SentencePiece would"
                )


def found_whole(added: Sequence[Added]) -> dict[str, int]:
    """Added tokens that llama.cpp finds in text before all else. One that spells spaces as SentencePiece does is not
    among them: the source does not find it in text either, since it looks before spaces are replaced."""
    return {token.text: token.id for token in added if token.special or SPACE not in token.text}


def _parts(part: Any) -> list[Mapping[str, Any]]:
    if part is None:
        return []
    if isinstance(part, Mapping) and part.get("type") == "Sequence":
        return [inner for one in part.get("normalizers") or [] for inner in _parts(one)]
    return [part] if isinstance(part, Mapping) else [{"type": part}]
