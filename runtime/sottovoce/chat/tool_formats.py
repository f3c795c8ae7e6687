"""How models write calls of tools: one row a format. Nothing here parses or renders."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """opening `lead` {"name": ..., `arguments`: {...}} `tail` closing

    Without `opening`, a call is an answer that begins with a brace. With `listed` there is one JSON list of all calls
    between the marks, else every call has marks of its own, with `between` between them. `injected` where the template
    knows nothing of tools and we tell the model about them ourselves.
    """

    name: str
    opening: str
    closing: str
    arguments: str = "arguments"
    listed: bool = False
    lead: str = ""
    tail: str = ""
    between: str = ""
    injected: bool = False


HERMES = ToolFormat("hermes", "<tool_call>", "</tool_call>", lead="\n", tail="\n", between="\n")
LLAMA3 = ToolFormat("llama3", "", "", arguments="parameters", between="; ")
MISTRAL = ToolFormat("mistral", "[TOOL_CALLS]", "", listed=True, lead=" ")
PHI = ToolFormat("phi", "<|tool_call|>", "<|/tool_call|>", listed=True)
PLAIN = ToolFormat("plain", "<tool_call>", "</tool_call>", lead="\n", tail="\n", between="\n", injected=True)

FORMATS: Mapping[str, ToolFormat] = {row.name: row for row in (HERMES, MISTRAL, PHI, LLAMA3, PLAIN)}
