"""`Chat`: messages in, answers out. The one object a user of a language model needs.

Ties together the loaded model, prompts, constraints and the decoding loop; each knows its own part. Nothing is loaded
until `load` or the first use.
"""

import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sottovoce.chat.adapters import attach
from sottovoce.chat.answer import answer
from sottovoce.chat.constraint import Thinking
from sottovoce.chat.loading import LoadedChat
from sottovoce.chat.options import ChatOptions
from sottovoce.chat.prompt import Prompt, make_prompt, render, tokens_of
from sottovoce.chat.protocols import Constraint
from sottovoce.chat.sessions import Present, Session, load_session, save_session
from sottovoce.chat.tools import ToolChoice, call_grammar, read_choice, read_tools
from sottovoce.chat.types import Completion, Delta, Message, ToolCall
from sottovoce.errors import InputError

Float = NDArray[np.float32]
_NO_TOOLS = ToolChoice("none", ())


class Chat:
    """Answers with one model: a bundle, or a plain `.gguf` file.

    Not safe for use from several threads at once, nor for two answers at once: make one for each.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None, context: int | None = None) -> None:
        """`context` is how many tokens there is room for, by default what the bundle was made for."""
        for name, value in (("threads", threads), ("context", context)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name} = {value!r}; at least 1 is needed")
        self.path = Path(path)
        self._threads = threads or min(4, os.cpu_count() or 1)
        self._context = context
        self._loaded: LoadedChat | None = None
        self._adapters: list[tuple[str, float]] = []  # digest and scale of what is attached

    def load(self) -> None:
        """Open the model, check it, and make it ready.

        Raises BundleError for a file that is damaged or made for something else, EngineError where the engine fails or
        memory is short, MissingExtraError naming what to install.
        """
        if self._loaded is None:
            self._loaded = LoadedChat.open(self.path, self._threads, self._context)

    def close(self) -> None:
        """Give all memory back. The chat loads again when it is used again."""
        if self._loaded is not None:
            self._loaded.engine.close()
            self._loaded = None
            self._adapters.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def note(self) -> str:
        """What a user should know of this model here, such as that nothing was measured on it; "" where nothing."""
        return self._ready.note

    @property
    def engine(self) -> str:
        """The engine in use, with its version."""
        return self._ready.engine.name

    @property
    def context(self) -> int:
        """Tokens there is room for."""
        return self._ready.engine.context

    def stream(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: Any = None,
        parallel_tool_calls: bool | None = None,
        response_format: Mapping[str, Any] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Generator[Delta, None, None]:
        """The answer to `messages`, piece by piece; the last one has `finish_reason` and `usage`.

        Messages, tools, tool_choice and response_format are the OpenAI API's; `template_variables` are what else the
        model's template reads (enable_thinking); `options` are the fields of `ChatOptions`. Close the generator to stop
        early. Raises InputError for anything that is not sound, before anything is computed; IncompleteOutputError
        where the token limit cuts off what had to be JSON or a tool call.
        """
        ready = self._ready
        chosen = ChatOptions.of(ready.defaults, **options)
        # A model that learns of tools from us alone tends to call them for ever.
        parallel = not ready.form.injected if parallel_tool_calls is None else parallel_tool_calls
        choice = read_choice(tool_choice, read_tools(tools), parallel=parallel)
        if response_format is not None and response_format.get("type") != "text" and choice.kind != "none":
            raise InputError('an answer is JSON or may call tools, not both: give tool_choice="none" for the JSON')
        prompt = make_prompt(ready, messages, choice, chosen, template_variables)
        constraint, must_be = _constraint(ready, prompt, choice, response_format)
        return answer(ready, prompt, chosen, choice, constraint, must_be)

    def chat(self, messages: Sequence[Message], **given: Any) -> Completion:
        """The whole answer in one piece; arguments as for `stream`."""
        return _whole(self.stream(messages, **given))

    def complete(self, text: str, **options: Any) -> Generator[Delta, None, None]:
        """Continues `text` as it is, without a template: for models that were not made to answer."""
        ready = self._ready
        chosen = ChatOptions.of(ready.defaults, **options)
        if not isinstance(text, str) or not text:
            raise InputError(f"text to continue: {text!r:.60}; a text that is not empty is needed")
        prompt = Prompt(text, tokens_of(ready, text), 0, False, False, 0)
        if len(prompt.tokens) >= self.context:
            raise InputError(f"the text is {len(prompt.tokens)} tokens, the context is {self.context}; shorten it")
        return answer(replace(ready, tags=None), prompt, chosen, _NO_TOOLS, None, None)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt that `messages` become: what the model is given to continue."""
        return render(self._ready, messages, read_choice(None, read_tools(tools)), template_variables)

    def count_tokens(self, text: str | Sequence[Message]) -> int:
        """How many tokens a text, or the prompt of messages, takes."""
        ready = self._ready
        if isinstance(text, str):
            return len(ready.engine.vocabulary.encode(text, special=False))
        return len(tokens_of(ready, render(ready, text, _NO_TOOLS)))

    def embed(self, text: str) -> Float:
        """The model's embedding of `text`, (width,) float32 of unit length. Raises InputError where the model is not
        made for it."""
        ready = self._ready
        return ready.engine.embed(tokens_of(ready, text))

    def attach_adapter(self, path: str | os.PathLike[str], scale: float = 1.0) -> None:
        """Answer with the LoRA adapter (GGUF, from `sottovoce adapter`) at `path`, beside those attached before.

        Raises InputError for one that was made for another model or changes nothing, BundleError for a damaged file;
        what was attached before stays as it was.
        """
        digest = attach(self._ready, Path(path), scale, len(self._adapters))
        self._adapters.append((digest, scale))

    def detach_adapters(self) -> None:
        """Answer as the model does without adapters."""
        self._ready.engine.detach()
        self._adapters.clear()

    def save_session(self, path: str | os.PathLike[str], messages: Sequence[Message]) -> None:
        """Keep a conversation with what was computed for it, so that it goes on without being read again."""
        ready = self._ready
        tokens = ready.prefix.tokens
        state = ready.engine.save_state()
        save_session(Path(path), Session(self.engine, self._identity, tuple(messages), tokens, state))

    def load_session(self, path: str | os.PathLike[str]) -> list[Message]:
        """The messages of a saved conversation; its next answer begins as soon as if it had never ended.

        Raises InputError for a file that is damaged or of another model; the present conversation then goes on.
        """
        ready = self._ready
        present = Present(self.engine, self._identity, ready.engine.vocabulary.size, self.context)
        session = load_session(Path(path), present)
        if session.state:
            ready.prefix.restore(session.tokens, session.state)
        return list(session.messages)

    @property
    def _identity(self) -> str:
        return "+".join([self._ready.identity, *(f"{digest}*{scale!r}" for digest, scale in self._adapters)])

    @property
    def _ready(self) -> LoadedChat:
        self.load()
        assert self._loaded is not None
        return self._loaded


def _constraint(
    ready: LoadedChat, prompt: Prompt, choice: ToolChoice, response_format: Mapping[str, Any] | None
) -> tuple[Constraint | None, str | None]:
    """What holds the answer to its form, and what it must be whole."""
    thinking = Thinking(ready.tags, prompt.opens_thinking) if ready.tags is not None and prompt.may_think else None
    if (constraint := ready.constraints.for_response(response_format, thinking)) is not None:
        return constraint, "JSON"
    grammar = call_grammar(ready.form, choice, ready.constraints.mark)
    if grammar is None:
        return None, None
    needed = "a tool call" if choice.kind == "required" else None
    return ready.constraints.lark(grammar, "tools", thinking), needed


def _whole(deltas: Generator[Delta, None, None]) -> Completion:
    text, reasoning, calls = [], [], list[ToolCall]()
    last = Delta()
    for last in deltas:
        text.append(last.text)
        reasoning.append(last.reasoning)
        calls += last.tool_calls
    assert last.finish_reason is not None and last.usage is not None
    return Completion("".join(text), "".join(reasoning), tuple(calls), last.finish_reason, last.usage)
