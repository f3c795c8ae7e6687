"""How llama.cpp's "llama" tokenizer makes tokens of text: SentencePiece's BPE, by scores and not by merges.

Here to find out, before a file is written, whether a tokenizer.json with merges would be told apart from it.
"""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_C_SPACE = " \t\n\v\f\r"
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


@dataclass(frozen=True)
class ScoredPieces:
    """`ids` and `scores` of every piece; `whole` are pieces that are found in text before anything else is done, after
    those of `strips` space is dropped."""

    ids: Mapping[str, int]
    scores: Mapping[str, float]
    whole: Mapping[str, int]
    space_prefix: bool
    strips: frozenset[str] = frozenset()

    def encode(self, text: str) -> list[int]:
        """The tokens of text in which special tokens are parsed."""
        tokens: list[int] = []
        after_special = True
        for part in self._parts(text):
            if isinstance(part, int):
                tokens.append(part)
                after_special = True
                continue
            prefix = " " if self.space_prefix and after_special else ""
            tokens += self._merged(f"{prefix}{part}".replace(" ", SPACE))
            after_special = False
        return tokens

    def _parts(self, text: str) -> list[str | int]:
        parts: list[str | int] = [text] if text else []
        for piece in sorted(self.whole, key=lambda piece: -len(piece.encode())):
            if piece in text:
                parts = [new for part in parts for new in self._divide(part, piece)]
        return parts

    def _merged(self, text: str) -> Iterator[int]:
        symbols = list(text)
        after, before = list(range(1, len(symbols) + 1)), list(range(-1, len(symbols) - 1))
        queue: list[tuple[float, int, int, str]] = []

        def offer(left: int, right: int) -> None:
            if left >= 0 and right < len(symbols):
                both = symbols[left] + symbols[right]
                if both in self.ids:
                    heapq.heappush(queue, (-self.scores[both], left, right, both))

        for i in range(1, len(symbols)):
            offer(i - 1, i)
        while queue:
            _, left, right, both = heapq.heappop(queue)
            if not symbols[left] or not symbols[right] or symbols[left] + symbols[right] != both:
                continue
            symbols[left], symbols[right] = both, ""
            after[left] = after[right]
            if after[right] < len(symbols):
                before[after[right]] = left
            offer(before[left], left)
            offer(left, after[left])
        for symbol in symbols:
            if symbol:
                yield from self._ids(symbol)

    def _ids(self, symbol: str) -> Iterator[int]:
        if symbol in self.ids:
            yield self.ids[symbol]
        else:
            yield from (self.ids[f"<0x{byte:02X}>"] for byte in symbol.encode())

    def _divide(self, part: str | int, piece: str) -> Iterator[str | int]:
        if isinstance(part, int):
            yield part
            return
        for i, text in enumerate(part.split(piece)):
            if i:
                yield self.whole[piece]
            if text := text.lstrip(_C_SPACE) if i and piece in self.strips else text:
                yield text
