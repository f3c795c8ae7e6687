"""Instructions and prompts: the answer is learned, the question is not."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.chat.template_case import FAMILIES

from sottovoce_compiler.finetune.data.coder import Coder
from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.finetune.data.instruction import instructions, prompts
from sottovoce_compiler.finetune.data.lines import Faults
from sottovoce_compiler.finetune.data.records import InstructionLine, PromptLine

from .data_case import coder_of, learned_texts


def instructed(coder: Coder, *lines: InstructionLine) -> tuple[list[Example], Counter[str], Faults]:
    faults, notes = Faults("data.jsonl"), Counter[str]()
    return instructions(coder, lines, faults, notes), +notes, faults


def prompted(coder: Coder, *lines: PromptLine) -> tuple[list[Example], Counter[str]]:
    notes = Counter[str]()
    return prompts(coder, lines, notes), +notes


def asked(coder: Coder, example: Example) -> str:
    return coder.decode(example.last_answer()[0])


def test_an_instruction_is_asked_through_the_template_with_its_input_below_it(tmp_path: Path) -> None:
    coder = coder_of(tmp_path, "chatml", FAMILIES["chatml"])
    lines = [InstructionLine(1, "Add.", "1, 2", "3"), InstructionLine(2, "Sing.", " ", "La", "Be loud.")]
    (first, second), notes, _ = instructed(coder, *lines)
    assert asked(coder, first) == "<|im_start|>user\nAdd.\n\n1, 2<|im_end|>\n<|im_start|>assistant\n"
    assert asked(coder, second) == (
        "<|im_start|>system\nBe loud.<|im_end|>\n<|im_start|>user\nSing.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [learned_texts(coder, one) for one in (first, second)] == [["3<|im_end|>"], ["La<|im_end|>"]]
    assert (first.line, second.line) == (1, 2) and not notes


@pytest.mark.parametrize("adds_bos", [False, True])
def test_without_a_template_an_instruction_is_asked_in_plain_text(tmp_path: Path, adds_bos: bool) -> None:
    coder = coder_of(tmp_path, "chatml", None, adds_bos=adds_bos)
    (example,), notes, _ = instructed(coder, InstructionLine(1, "Add.", "1, 2", "3", "Be brief."))
    begin = "<s>" if adds_bos else ""
    assert asked(coder, example) == f"{begin}Be brief.\n\nAdd.\n\n1, 2\n\nAnswer:\n"
    assert learned_texts(coder, example) == ["3<|im_end|>"] and notes == {"plain": 1}


def test_an_instruction_that_the_template_refuses_is_a_fault_of_its_line(tmp_path: Path) -> None:
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    coder = coder_of(tmp_path, "chatml", source + FAMILIES["chatml"])
    lines = [InstructionLine(1, "Add.", "", "3"), InstructionLine(2, "Add.", "", "3", "Be brief.")]
    examples, _, faults = instructed(coder, *lines)
    assert [one.line for one in examples] == [1] and str(faults.first[0]).endswith("no system")


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize(("prompt", "completion"), [("Q: b\nA:", " a"), ("Q: b\nA:\n", "\n\nb"), ("ab", "c d")])
def test_a_prompt_has_the_tokens_that_it_has_alone(tmp_path: Path, prompt: str, completion: str, spaced: bool) -> None:
    coder = coder_of(tmp_path, "chatml", None, spaced=spaced, adds_bos=True)
    (example,), notes = prompted(coder, PromptLine(4, prompt, completion))
    before, after = example.last_answer()
    assert before.tolist() == coder.encode_text([prompt])[0]
    assert coder.decode(after) == completion + "<|im_end|>"
    assert example.line == 4 and not notes


def test_prompts_that_end_in_a_space_and_spelt_control_tokens_are_noted(tmp_path: Path) -> None:
    coder = coder_of(tmp_path, "chatml", None)
    lines: list[Any] = [("a ", "b"), ("a", "b<|im_end|>"), ("a\n", "b")]
    examples, notes = prompted(coder, *(PromptLine(1, *line) for line in lines))
    assert notes == {"spaced": 1, "spelled": 1}
    assert examples[1].ids.tolist().count(coder.end) == 1
