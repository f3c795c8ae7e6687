"""What a chat takes and gives back, under the OpenAI API's names; nothing here computes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

# A message as the OpenAI API has it: {"role": ..., "content": ...}, with "tool_calls", "tool_call_id" or "name".
Message = Mapping[str, Any]

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer took; counts of tokens.

    `cached_tokens` of the prompt were still in memory from before. `dropped_messages` were left out of the prompt to
    make room (only where the caller allows it).
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    dropped_messages: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that the model asks for; `arguments` is JSON text, as the OpenAI API has it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of an answer: text that is final, whole characters only.

    `reasoning` is text of a thinking section. `tool_calls` are whole when they come. The last delta of an answer has
    `finish_reason` and `usage`, the others have neither.
    """

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer: the deltas' texts and calls joined."""

    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    usage: Usage

    def message(self) -> dict[str, Any]:
        """The answer as the message that is appended to a conversation."""
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self.tool_calls
        ]
        return {"role": "assistant", "content": self.text, **({"tool_calls": calls} if calls else {})}
