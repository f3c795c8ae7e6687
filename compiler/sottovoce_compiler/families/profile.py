"""What a chat needs to know of a model beyond its weights: how it spells tool calls, and where its thinking is.

Read off the chat template, which is what the model was trained with; a family's habit decides where it says nothing.
"""

from dataclasses import dataclass
from typing import Literal

from sottovoce_compiler.sources.checkpoint import Checkpoint

ToolFormat = Literal["hermes", "llama3", "mistral", "phi", "none"]

# What betrays a format, in the order in which it is looked for.
_MARKS: tuple[tuple[str, ToolFormat], ...] = (
    ("[TOOL_CALLS]", "mistral"),
    ("<tool_call>", "hermes"),
    ("<|tool|>", "phi"),
    ("<|start_header_id|>", "llama3"),
)
# "none": the model knows no format; tools are described to it in words.
_HABIT: dict[str, ToolFormat] = {
    **{"llama": "hermes", "mistral": "mistral", "qwen2": "hermes", "qwen3": "hermes", "smollm3": "hermes"},
    **{"phi3": "phi", "gemma3": "none", "gemma3_text": "none"},
}
_THINKING = (("<think>", "</think>"),)


@dataclass(frozen=True, slots=True)
class Profile:
    """`tool_format`: "hermes" <tool_call>{"name", "arguments"}</tool_call>, "llama3" {"name", "parameters"}, "mistral"
    [TOOL_CALLS][...], "phi" <|tool_call|>[...], "none". `thinking`: the marks around it, None without."""

    tool_format: ToolFormat
    thinking: tuple[str, str] | None


def profile_of(checkpoint: Checkpoint) -> Profile:
    """The profile of a language model, from its chat template and `model_type`."""
    template = checkpoint.chat_template or ""
    found = next((format_ for mark, format_ in _MARKS if mark in template), None)
    habit = _HABIT.get(str(checkpoint.config.get("model_type")), "none")
    return Profile(found or habit, next((marks for marks in _THINKING if marks[0] in template), None))
