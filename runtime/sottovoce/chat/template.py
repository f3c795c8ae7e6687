"""Chat templates: messages become the text that the model was trained on, as transformers renders it.

Knows messages and what templates are given beside them; what a template may do is in template_sandbox, what it may cost
in template_limits. Needs jinja2, which is imported at the first render.
"""

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from sottovoce.chat.messages import ChatMessage
from sottovoce.chat.template_limits import MAX_SOURCE, Meter, TemplateLimitError
from sottovoce.errors import BundleError, InputError, MissingExtraError

if TYPE_CHECKING:
    from jinja2 import Template

    from sottovoce.chat.template_sandbox import Sandbox

ANSWER = ("\ue10c", "\ue10d")  # before and after what the model wrote, with `mark_answers`; private use
_PER_MESSAGE = 200  # characters that a message counts for beside its text
_HERE = "\ue000\ue001 "  # where the last message ends; the space tells whether the template trims
_PROBE = "probe_tool_q7"
_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")

T = TypeVar("T")


class ChatTemplate:
    """One model's template. Cheap until the first render, which compiles it; safe to share between threads."""

    def __init__(
        self,
        source: str,
        *,
        special_tokens: Mapping[str, str] | None = None,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        """`special_tokens` are the variables that transformers gives: bos_token, eos_token and others, as text.

        Raises BundleError for a template longer than MAX_SOURCE.
        """
        if len(source) > MAX_SOURCE:
            raise BundleError(f"the chat template has {len(source)} characters, the limit is {MAX_SOURCE}")
        self.source = source
        self._special_tokens = dict(special_tokens or {})
        self._clock = clock
        self._lock = threading.Lock()
        self._compiled: tuple[Sandbox, Template] | None = None

    def render(
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        documents: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
        mark_answers: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt. `tools` in the OpenAI shape, `variables` what else the template may read (enable_thinking).

        With `continue_final` the last message is left open for the model to go on with. With `mark_answers` the two of
        `ANSWER` stand around what the template says the model writes (see `marks_answers`). Raises InputError with the
        template's own words where it refuses the messages, BundleError where the template is not sound.
        """
        given: list[dict[str, Any]] = [message.for_template() for message in messages]
        if continue_final:
            if not given or given[-1]["role"] != "assistant":
                raise InputError("only an assistant's message can be continued, and the last one is not")
            add_generation_prompt = False
            given[-1]["content"] += _HERE
        values = self._special_tokens | {
            "messages": given,
            "tools": _plain(list(tools), "tools") if tools else None,
            "documents": _plain(documents, "documents"),
            "add_generation_prompt": add_generation_prompt,
            **_plain(dict(variables or {}), "variables"),
        }
        text = self._render(values, ANSWER if mark_answers else ("", ""))
        return _cut(text) if continue_final else text

    @property
    def marks_answers(self) -> bool:
        """Whether the template says what the model writes, by `{% generation %}`."""
        return _GENERATION.search(self.source) is not None

    @cached_property
    def knows_tools(self) -> bool:
        """Whether the template shows tools to the model: the name of one appears in what it renders."""
        parameters = {"type": "object", "properties": {"value": {"type": "string", "description": "a value"}}}
        function = {"name": _PROBE, "description": "a probe", "parameters": parameters}
        user = ChatMessage("user", "Hello")
        for messages in (
            (user,),
            (ChatMessage("system", "Be brief."), user),
        ):  # some need the system
            try:
                if _PROBE in self.render(messages, tools=({"type": "function", "function": function},)):
                    return True
            except InputError:
                continue
        return False

    def _render(self, values: Mapping[str, Any], generation: tuple[str, str]) -> str:
        with self._lock:
            sandbox, template = self._compile()
            sandbox.generation = generation
            sandbox.meter = meter = Meter(_size(values))
            return _guarded(lambda: _joined(template, values, meter), "cannot render these messages", InputError)

    def _compile(self) -> "tuple[Sandbox, Template]":
        if self._compiled is None:
            sandbox = _sandbox(self._clock)
            self._compiled = sandbox, _guarded(lambda: _compiled(sandbox, self.source), "is damaged", BundleError)
        return self._compiled


def _sandbox(clock: Callable[[], datetime]) -> "Sandbox":
    try:
        from sottovoce.chat.template_sandbox import Sandbox
    except ImportError as error:
        if not (error.name or "").startswith(("jinja2", "markupsafe")):
            raise
        raise MissingExtraError("chat templates need jinja2: pip install 'sottovoce[chat]'") from error
    return Sandbox(clock)


def _compiled(sandbox: "Sandbox", source: str) -> "Template":
    code = sandbox.compile(sandbox.tree(source))
    return sandbox.template_class.from_code(sandbox, code, sandbox.make_globals(None))


def _joined(template: "Template", values: Mapping[str, Any], meter: Meter) -> str:
    pieces, length = [], 0
    for piece in template.root_render_func(template.new_context(dict(values))):
        length += len(piece)
        meter.room_for(length)
        pieces.append(piece)
    return "".join(pieces)


def _guarded(work: Callable[[], T], failed: str, kind: type[InputError | BundleError]) -> T:
    """`work` done, and whatever a template can raise made one of our errors."""
    from jinja2.exceptions import SecurityError

    from sottovoce.chat.template_sandbox import TemplateRefusal

    try:
        return work()
    except TemplateRefusal as error:
        raise InputError(f"the chat template refuses these messages: {error}") from error
    except TemplateLimitError as error:
        raise BundleError(f"the chat template goes beyond a limit: {error}") from error
    except SecurityError as error:
        raise BundleError(f"the chat template does what it may not: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise BundleError("the chat template goes beyond a limit: it is nested too deeply") from error
    except Exception as error:
        at = getattr(error, "lineno", None)
        line = f"line {at}: " if at else ""
        raise kind(f"the chat template {failed}: {line}{_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300] or type(error).__name__


def _size(values: Mapping[str, Any]) -> int:
    return len(json.dumps(values, ensure_ascii=False)) + _PER_MESSAGE * len(values["messages"])


def _plain(value: Any, what: str) -> Any:
    """`value` as JSON has it, so that a template meets nothing with methods of its own."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what}: only JSON values can be given to a chat template ({error})") from error


def _cut(text: str) -> str:
    """`text` up to the end of the last message."""
    at = text.rfind(_HERE.strip())
    if at < 0:
        raise InputError("the chat template drops the last message, so that it cannot be continued")
    return text[:at] if text.startswith(_HERE, at) else text[:at].rstrip()
