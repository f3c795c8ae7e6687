"""Text to tokens and messages to prompts, as the device will do it, for many at a time.

Over the runtime's own template and its guard against control tokens in what people write, and over the compiler's
reading of a source's tokenizer. Knows no lines of data and nothing of what is learned.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any

from sottovoce.chat.messages import ChatMessage
from sottovoce.chat.plain_text import PlainText
from sottovoce.chat.template import ANSWER, ChatTemplate
from sottovoce.chat.tokenizer import TokenizerVocabulary
from sottovoce.chat.tool_formats import PLAIN
from sottovoce.chat.tool_prompt import with_tools_told
from sottovoce.chat.tools import Tool, format_of, read_choice
from sottovoce.errors import InputError
from sottovoce_compiler.families.causal import CausalSpec
from sottovoce_compiler.lowerings.gguf.tokenizer_file import read_tokenizer_file
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_compiler.tokens import chat_tokens

# Text, whether the spelling of a control token in it is that token, and whether it goes on where other text ended.
Piece = tuple[str, bool, bool]

_STRAY = str.maketrans("", "", "".join(ANSWER))
_BEFORE = "\n"  # stands before text that goes on, so that no tokenizer takes it for a beginning


class Coder:
    """The tokenizer and the chat template of one checkpoint. `dated` says whether the template writes the day, which
    is `date` for all that is rendered."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        spec: CausalSpec,
        *,
        variables: Mapping[str, Any] | None = None,
        date: datetime | None = None,
    ) -> None:
        """`variables` are what else the template may read (enable_thinking); `date` is now where it is None.

        Raises SourceError and UnsupportedModelError as `chat_tokens` does.
        """
        tokens = chat_tokens(checkpoint, spec)
        file = read_tokenizer_file(checkpoint)
        self.name, self.size, self.context = checkpoint.name, spec.vocab_size, spec.context
        self.end, self.ends = tokens.ends[0], frozenset(tokens.ends)
        self._begin = tokens.bos if tokens.adds_bos else None
        self._composes = tokens.composes
        self._tokenizer = file.library()
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        assert checkpoint.tokenizer_file is not None  # it was read
        self._vocabulary = TokenizerVocabulary(checkpoint.tokenizer_file.read_bytes(), tokens.to_json(), self.size)
        self._plain = PlainText(self._vocabulary)
        self.date = date or datetime.now()
        self._variables = dict(variables or {})
        source = checkpoint.chat_template
        self.template = (
            ChatTemplate(source, special_tokens=tokens.special, clock=lambda: self.date) if source is not None else None
        )
        self.dated = source is not None and "strftime_now" in source
        self._form = format_of(self.template) if self.template else PLAIN
        (before,) = self._batch([_BEFORE], special=False)
        (after,) = self._batch([_BEFORE + "a"], special=False)
        # SentencePiece's tokenizers put a space before text that begins.
        self._begins_with_space = self._batch(["a"], special=False) != [after[len(before) :]]
        self._before = before

    @cached_property
    def answer_prompt(self) -> str:
        """What the template writes for the model to go on from, "" where that is not told from the rest."""
        probe = (ChatMessage("user", "Hello"),)
        try:
            without, prompted = self.render(probe, prompt=False), self.render(probe, prompt=True)
        except InputError:
            return ""
        return prompted[len(without) :] if prompted.startswith(without) else ""

    def hidden(self, messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
        """`messages` with marks in place of control tokens' spellings, ready to be rendered."""
        return self._plain.hidden([_without_marks(message) for message in messages])

    def render(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool] = (),
        *,
        prompt: bool,
        mark_answers: bool = False,
    ) -> str:
        """The text of messages that were `hidden`, as the runtime renders it; with `prompt` up to where an answer is to
        begin. Raises InputError and BundleError as `ChatTemplate.render` does."""
        assert self.template is not None
        if self._form.injected:
            messages, tools = with_tools_told(messages, read_choice(None, tools)), ()
        return self.template.render(
            messages,
            tools=[tool.for_template() for tool in tools],
            add_generation_prompt=prompt,
            mark_answers=mark_answers,
            variables=self._variables,
        )

    def encode_rendered(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of rendered texts, each with the token that text begins with where it does not have it yet: what
        the runtime gives an engine. Raises InputError for a token that the model does not have."""
        return self.encode_cut(texts, ())

    def encode_cut(self, texts: Sequence[str], cuts: Sequence[int]) -> list[list[int]]:
        """The same with no token that reaches over one of `cuts`, characters from the beginning of each text."""
        return [self._begun(ids) for ids in self._pieces([self._rendered(text, cuts) for text in texts])]

    def encode_text(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of plain texts, with the token that text begins with. A control token's spelling is text."""
        return [self._begun(ids) for ids in self._pieces([[(self._composed(text), False, False)] for text in texts])]

    def encode_continued(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of plain texts that go on where other tokens end: what a model writes after these."""
        return self._pieces([[(self._composed(text), False, True)] for text in texts])

    def spells_control(self, text: str) -> bool:
        """Whether the spelling of a control token is in `text`."""
        message = ChatMessage("user", text)
        return self._plain.hidden([message])[0].content != text

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens, control tokens spelled out."""
        return b"".join(map(self._vocabulary.token_bytes, map(int, ids))).decode("utf-8", "replace")

    def _composed(self, text: str) -> str:
        return unicodedata.normalize("NFC", text) if self._composes else text

    def _begun(self, ids: list[int]) -> list[int]:
        return ids if self._begin is None or ids[:1] == [self._begin] else [self._begin, *ids]

    def _rendered(self, text: str, cuts: Sequence[int]) -> list[Piece]:
        ends = sorted({*(cut for cut in cuts if 0 < cut < len(text)), len(text)})
        parts = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return [
            (piece, special, index > 0 and not inner)
            for index, part in enumerate(parts)
            for inner, (piece, special) in enumerate(self._plain.pieces(self._composed(part)))
        ]

    def _pieces(self, texts: Sequence[Sequence[Piece]]) -> list[list[int]]:
        """The tokens of each of `texts`; all pieces of a sort are encoded at once, in parallel."""
        sorts: dict[tuple[bool, bool], list[str]] = {}
        for pieces in texts:
            for text, special, goes_on in pieces:
                sorts.setdefault((special, goes_on), []).append(text)
        found = {sort: iter(self._encoded(some, *sort)) for sort, some in sorts.items()}
        return [[token for _, *sort in pieces for token in next(found[sort[0], sort[1]])] for pieces in texts]

    def _encoded(self, texts: list[str], special: bool, goes_on: bool) -> list[list[int]]:
        alone = self._batch(texts, special=special)
        if not (goes_on and self._begins_with_space):
            return alone
        led, cut = self._batch([_BEFORE + text for text in texts], special=special), len(self._before)
        return [
            ids[cut:] if ids[:cut] == self._before else otherwise for ids, otherwise in zip(led, alone, strict=True)
        ]

    def _batch(self, texts: list[str], *, special: bool) -> list[list[int]]:
        self._tokenizer.encode_special_tokens = not special
        found: list[list[int]] = [
            encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ]
        if (highest := max((token for ids in found for token in ids), default=0)) >= self.size:
            text = self._tokenizer.id_to_token(highest)
            raise InputError(
                f"{self.name}: the tokenizer has token {highest} ({text!r:.40}), the model only {self.size}; "
                "the tokenizer is another model's"
            )
        return found


def _without_marks(message: ChatMessage) -> ChatMessage:
    text = message.content + (message.reasoning or "")
    if not any(mark in text for mark in ANSWER):
        return message
    reasoning = None if message.reasoning is None else message.reasoning.translate(_STRAY)
    return replace(message, content=message.content.translate(_STRAY), reasoning=reasoning)
