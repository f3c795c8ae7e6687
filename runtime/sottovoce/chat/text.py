"""From tokens' bytes to text that may be shown: whole characters, and nothing that a stop string may still swallow.

Knows UTF-8 and stop strings; knows nothing of tokens.
"""

import codecs
from collections.abc import Sequence


class TextStream:
    """Bytes in, text out. The first stop string to be complete ends the text before its first character; of several
    that end together the longest counts. So the text does not depend on how the bytes were split.

    Time is linear in the text: one step of an Aho-Corasick automaton (Aho and Corasick 1975) a character.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._automaton = _Automaton(stops) if stops else None
        self._state = 0
        self._held = ""  # the beginning of a stop string, perhaps
        self.stopped = False

    def push(self, piece: bytes) -> str:
        """The text that `piece` makes final; nothing more once a stop string was met."""
        return self._advance(self._decoder.decode(piece)) if not self.stopped else ""

    def finish(self) -> str:
        """What was held back; half a character at the end becomes U+FFFD. Nothing where a stop string was met."""
        if self.stopped:
            return ""
        text = self._advance(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return text

    def _advance(self, new: str) -> str:
        if self._automaton is None:
            return new
        text, begin = self._held + new, len(self._held)
        step, matched = self._automaton.step, self._automaton.matched
        state = self._state
        for at in range(begin, len(text)):
            state = step(state, text[at])
            if matched[state]:
                self.stopped, self._held = True, ""
                return text[: at + 1 - matched[state]]
        self._state = state
        final = len(text) - self._automaton.depth[state]
        self._held = text[final:]
        return text[:final]


class _Automaton:
    """A trie of the stops; a node is the longest end of the text so far that begins a stop.

    depth     how many characters that is, for every node
    matched   length of the longest stop that ends the text there, or 0
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.depth, self.matched = [0], [0]
        self._next: list[dict[str, int]] = [{}]
        for stop in stops:
            self.matched[self._insert(stop)] = len(stop)
        self._shorter = [0] * len(self.depth)  # the node of the next shorter end of the same text
        self._link()

    def _insert(self, stop: str) -> int:
        node = 0
        for character in stop:
            if character not in self._next[node]:
                self._next[node][character] = len(self._next)
                self._next.append({})
                self.depth.append(self.depth[node] + 1)
                self.matched.append(0)
            node = self._next[node][character]
        return node

    def _link(self) -> None:
        """Nodes by rising depth, so that a shorter one is always linked first."""
        level = list(self._next[0].values())
        while level:
            following = []
            for node in level:
                self.matched[node] = self.matched[node] or self.matched[self._shorter[node]]
                for character, child in self._next[node].items():
                    self._shorter[child] = self.step(self._shorter[node], character)
                    following.append(child)
            level = following

    def step(self, node: int, character: str) -> int:
        while node and character not in self._next[node]:
            node = self._shorter[node]
        return self._next[node].get(character, 0)
