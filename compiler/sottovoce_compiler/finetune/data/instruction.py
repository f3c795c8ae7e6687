"""Instructions and prompts as examples: the answer is learned, what is asked is not.

An instruction goes through the chat template as a question, its input below it. A model without a template is given
`PLAIN`. A prompt is continued as it is: its tokens are those it has alone, and so is what the model is to write. Knows
no file.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from sottovoce.chat.messages import ChatMessage
from sottovoce_compiler.finetune.data.coder import Coder
from sottovoce_compiler.finetune.data.conversation import conversations
from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.finetune.data.lines import Faults
from sottovoce_compiler.finetune.data.records import ChatLine, InstructionLine, PromptLine

PLAIN: Final = "{question}\n\nAnswer:\n"  # how a model without a template is asked


def instructions(coder: Coder, lines: Sequence[InstructionLine], faults: Faults, notes: Counter[str]) -> list[Example]:
    """An example for each line that is sound; others are added to `faults`."""
    if coder.template is not None:
        return conversations(coder, [_as_chat(line) for line in lines], False, faults, notes)
    notes["plain"] += len(lines)
    return prompts(coder, [_as_prompt(line) for line in lines], notes)


def prompts(coder: Coder, lines: Sequence[PromptLine], notes: Counter[str]) -> list[Example]:
    """An example for each line."""
    notes["spaced"] += sum(line.prompt.endswith((" ", "\t")) for line in lines)
    notes["spelled"] += sum(coder.spells_control(line.prompt + line.completion) for line in lines)
    asked = coder.encode_text([line.prompt for line in lines])
    answered = coder.encode_continued([line.completion for line in lines])
    return [
        Example.of([*before, *after, coder.end], [False] * len(before) + [True] * (len(after) + 1), line.line)
        for line, before, after in zip(lines, asked, answered, strict=True)
    ]


def _as_chat(line: InstructionLine) -> ChatLine:
    system = (ChatMessage("system", line.system),) if line.system else ()
    messages = (*system, ChatMessage("user", _question(line)), ChatMessage("assistant", line.output))
    return ChatLine(line.line, messages, (), (len(messages) - 1,))


def _as_prompt(line: InstructionLine) -> PromptLine:
    question = f"{line.system}\n\n{_question(line)}" if line.system else _question(line)
    return PromptLine(line.line, PLAIN.format(question=question), line.output)


def _question(line: InstructionLine) -> str:
    return f"{line.instruction}\n\n{line.input}" if line.input.strip() else line.instruction
