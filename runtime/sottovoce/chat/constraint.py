"""Answers held to a grammar by llguidance: at every token, which may follow. Fulfils `protocols.Constraint`.

Knows llguidance's tokenizer, its grammars and its masks; JSON schemas are read in `schema`, grammars of tool calls are
written in `tools`. llguidance is imported when the first constraint is made.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.chat.schema import Schema, blame, read_schema
from sottovoce.chat.thinking import ThinkingTags
from sottovoce.engines.chat import Vocabulary
from sottovoce.errors import EngineError, InputError, MissingExtraError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

COMPACT = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}
RESPONSE_FORMATS = ("text", "json_object", "json_schema")
_KEPT = 16  # compiled grammars of one vocabulary
_SENTINEL = "\n"  # before text, where a tokenizer treats the beginning of text differently


class Constraints:
    """Makes constraints for one vocabulary; what it builds for it, and the latest grammars, it keeps.

    Cheap: the vocabulary is read when the first constraint is made (0.1 to 0.5 s for 50 to 260 thousand tokens).
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def for_response(
        self, response_format: Mapping[str, Any] | None, thinking: "Thinking | None" = None
    ) -> "GrammarConstraint | None":
        """The constraint for OpenAI's `response_format`; None for text. Raises InputError naming what is wrong."""
        schema = response_schema(response_format)
        return None if schema is None else self.json(schema, "response_format.json_schema.schema", thinking)

    def json(self, schema: Schema, place: str = "schema", thinking: "Thinking | None" = None) -> "GrammarConstraint":
        """JSON without whitespace for `schema` (from `read_schema`). Raises InputError for one that cannot be kept."""
        grammar = _json_grammar(schema)
        failed = self._failure(grammar)
        if failed:
            at, reason = blame(schema, place, lambda part: self._failure(_json_grammar(part)))
            raise InputError(f"{at}: {_plainly(reason or failed)}")
        if thinking is None:
            return self._made(grammar)
        return self.lark("start: %json " + json.dumps(schema | {"x-guidance": COMPACT}), place, thinking)

    def lark(self, grammar: str, place: str = "tools", thinking: "Thinking | None" = None) -> "GrammarConstraint":
        """For a grammar in llguidance's Lark. Raises InputError where it does not compile."""
        if thinking is not None:
            grammar = thinking.before(grammar, self.mark)
        whole = _library().LLMatcher.grammar_from_lark(grammar)
        failed = self._failure(whole)
        if failed:
            raise InputError(f"{place}: {_plainly(failed)}")
        return self._made(whole)

    def mark(self, text: str) -> str:
        """`text` in a Lark grammar: the control token that it is, else a literal."""
        tokens = self._vocabulary.encode(text, special=True)
        is_control = len(tokens) == 1 and self._vocabulary.is_control(tokens[0])
        return f"<[{tokens[0]}]>" if is_control else json.dumps(text)

    def _failure(self, grammar: str) -> str | None:
        """Why `grammar` does not compile; where it does, it is kept."""
        if grammar in self._compiled:
            return None
        matcher = _library().LLMatcher(self._tokenizer, grammar, log_level=0, limits=_limits())
        if matcher.is_error():
            return matcher.get_error() or "it does not compile"
        self._compiled[grammar] = matcher
        if len(self._compiled) > _KEPT:
            self._compiled.popitem(last=False)
        return None

    def _made(self, grammar: str) -> "GrammarConstraint":
        self._compiled.move_to_end(grammar)
        return GrammarConstraint(self._compiled[grammar].deep_copy(), self._vocabulary.size)

    @cached_property
    def _tokenizer(self) -> "LLTokenizer":
        library = _library()
        tokens = _Tokens(self._vocabulary)
        try:
            return library.LLTokenizer(  # type: ignore[no-any-return]
                library.TokenizerWrapper(tokens), n_vocab=len(tokens.tokens), eos_token=sorted(self._vocabulary.ends)
            )
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"llguidance does not take the model's vocabulary: {error}") from error


@dataclass(frozen=True, slots=True)
class Thinking:
    """That the model may think before what is constrained; with `open_already`, that its prompt made it begin to."""

    tags: ThinkingTags
    open_already: bool = False

    def before(self, grammar: str, mark: Callable[[str], str]) -> str:
        """`grammar` with any text before it that ends with the closing tag."""
        opening, closing = mark(self.tags.opening), mark(self.tags.closing)
        first = "thought SPACE? answer" if self.open_already else f"({opening} thought SPACE?)? answer"
        thought = f"thought: THOUGHT? {closing}" if closing.startswith("<[") else f"thought[lazy]: THOUGHT {closing}"
        rules = (f"start: {first}", thought, r"THOUGHT: /(.|\n)*/", r"SPACE: /\n{1,4}/")
        return "\n".join((*rules, "answer:" + grammar.removeprefix("start:")))


class GrammarConstraint:
    """A grammar and the place in it that the answer has reached."""

    def __init__(self, matcher: "LLMatcher", size: int) -> None:
        self._matcher = matcher
        self._packed = np.zeros((size + 31) // 32, np.int32)
        self._bytes = self._packed.view(np.uint8)
        self._size = size

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow."""
        return self._matcher.is_stopped()

    @property
    def may_end(self) -> bool:
        """Whether the answer is whole as it is, though more may follow."""
        return self._matcher.is_accepting()

    def forced(self) -> Sequence[int]:
        """Tokens that must come next, without a choice; often none."""
        return self._matcher.compute_ff_tokens()

    def mask(self) -> NDArray[np.bool_]:
        """Which tokens may come next, (vocabulary,) bool, until the next `accept`; an end where the answer may end."""
        self._matcher.unsafe_compute_mask_ptr(self._packed.ctypes.data, self._packed.nbytes)
        self._raise_failure()
        return np.unpackbits(self._bytes, count=self._size, bitorder="little").view(np.bool_)

    def accept(self, token: int) -> None:
        """Go on past `token`. Raises EngineError where it was not allowed or the grammar grew too complex."""
        if not self._matcher.consume_token(token):
            self._raise_failure()
            raise EngineError(f"token {token} does not follow by the grammar")

    def _raise_failure(self) -> None:
        if self._matcher.is_error():
            raise EngineError(f"the grammar failed: {_plainly(self._matcher.get_error())}")


def response_schema(response_format: Mapping[str, Any] | None) -> Schema | None:
    """The schema that `response_format` asks for, checked; None for text."""
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, Mapping) else None
    if kind not in RESPONSE_FORMATS:
        raise InputError(f"response_format: type {kind!r} is unknown; one of {', '.join(RESPONSE_FORMATS)}")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    given = response_format.get("json_schema")
    if not isinstance(given, Mapping) or "schema" not in given:
        raise InputError('response_format.json_schema needs {"name": ..., "schema": {...}}')
    return read_schema(given["schema"], "response_format.json_schema.schema")


def _json_grammar(schema: Schema) -> str:
    spelt = json.dumps(schema, ensure_ascii=False)
    return str(_library().LLMatcher.grammar_from_json_schema(spelt, overrides=COMPACT))


class _Tokens:
    """A vocabulary as llguidance wants it: every token's bytes, and a function from text to tokens."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        ends = sorted(vocabulary.ends)
        if not ends:
            raise EngineError("the model has no token that ends an answer, so its answers cannot be constrained")
        self._vocabulary = vocabulary
        self.eos_token_id = ends[0]
        self.bos_token_id = vocabulary.bos
        self.tokens = [vocabulary.token_bytes(token) for token in range(vocabulary.size)]
        special = {token for token in range(vocabulary.size) if vocabulary.is_control(token)}
        self.special_token_ids = sorted(special | vocabulary.ends)

    def __call__(self, text: bytes | str) -> list[int]:
        """The tokens that spell `text` exactly, as they stand within a text: some tokenizers put a space first."""
        wanted = text if isinstance(text, bytes) else text.encode()
        spelt = wanted.decode("utf-8", "replace")
        tokens = self._vocabulary.encode(spelt, special=False)
        if self._spelling(tokens) == wanted:
            return tokens
        tokens = self._vocabulary.encode(_SENTINEL + spelt, special=False)
        for cut in range(1, min(4, len(tokens)) + 1):
            if self._spelling(tokens[cut:]) == wanted:
                return tokens[cut:]
        return []

    def _spelling(self, tokens: Sequence[int]) -> bytes:
        return b"".join(self.tokens[token] for token in tokens)


def _library() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise MissingExtraError("structured output and tools need llguidance: pip install 'sottovoce[chat]'") from error
    return llguidance


def _limits() -> Any:
    return _library().LLParserLimits(verbose_errors=False)


def _plainly(reason: str) -> str:
    """llguidance's reason on one line, in our words where they are clearer."""
    line = " ".join(reason.split()).replace("Unimplemented keys:", "not supported:").replace("json-schema:///", "")
    return line if len(line) <= 240 else line[:237] + "..."
