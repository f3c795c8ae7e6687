"""Keeps what people write from steering the model: a control token's spelling in a message stays text.

A template's own `<|im_end|>` ends a turn; one that a user typed, or that a tool returned, must not. Before rendering
such spellings in messages give way to marks that no template looks for; after it, text between marks is encoded with
control tokens, what the marks stand for without. Knows a vocabulary and messages, no template.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sottovoce.chat.messages import ChatMessage
from sottovoce.engines.chat import Vocabulary

_OPEN, _CLOSE = "\ue10a", "\ue10b"  # private use, and removed from what is written
_MARK = re.compile(f"{_OPEN}([0-9]{{1,7}}){_CLOSE}")
_STRAY = str.maketrans("", "", _OPEN + _CLOSE)


@dataclass(frozen=True)
class PlainText:
    """The control tokens of one vocabulary, found when they are first needed."""

    vocabulary: Vocabulary

    def hidden(self, messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
        """`messages` with marks in the place of control tokens' spellings."""
        return tuple(
            replace(message, content=self._marked(message.content), reasoning=self._marked_or_none(message.reasoning))
            for message in messages
        )

    def shown(self, text: str) -> str:
        """Rendered text with what the marks stand for in their place."""
        return _MARK.sub(lambda mark: self._spelling(int(mark[1])), text) if _OPEN in text else text

    def encode(self, text: str) -> list[int]:
        """The tokens of rendered text: control tokens where the template wrote them, text where a mark stands."""
        return [token for part, special in self.pieces(text) for token in self.vocabulary.encode(part, special=special)]

    def pieces(self, text: str) -> list[tuple[str, bool]]:
        """Rendered text in the parts that are encoded one by one, each with whether control tokens may be in it."""
        if _OPEN not in text:
            return [(text, True)]
        found = []
        for index, part in enumerate(_MARK.split(text)):  # text, token, text, token, ... text
            if index % 2:
                found.append((self._spelling(int(part)), False))
            elif part:
                found.append((part, True))
        return found

    def prepare(self) -> None:
        """Look the control tokens up now, so that no first answer waits for it."""
        _ = self._pattern

    @cached_property
    def _controls(self) -> dict[str, int]:
        vocabulary = self.vocabulary
        tokens = (token for token in range(vocabulary.size) if vocabulary.is_control(token))
        spelt = ((vocabulary.token_bytes(token).decode("utf-8", "replace"), token) for token in tokens)
        return {text: token for text, token in spelt if text.strip()}

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        longest_first = sorted(self._controls, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def _marked(self, text: str) -> str:
        if _OPEN in text or _CLOSE in text:
            text = text.translate(_STRAY)
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: f"{_OPEN}{self._controls[found[0]]}{_CLOSE}", text)

    def _marked_or_none(self, text: str | None) -> str | None:
        return None if text is None else self._marked(text)

    def _spelling(self, token: int) -> str:
        if not 0 <= token < self.vocabulary.size:
            return ""
        return self.vocabulary.token_bytes(token).decode("utf-8", "replace")
