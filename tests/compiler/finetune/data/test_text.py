"""Texts: learned whole, or after a marker."""

from collections import Counter
from pathlib import Path

import pytest

from sottovoce_compiler.finetune.data.coder import Coder
from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.finetune.data.lines import Faults
from sottovoce_compiler.finetune.data.records import TextLine
from sottovoce_compiler.finetune.data.text import texts

from .data_case import coder_of, learned_texts


def made(coder: Coder, *lines: str, marker: str | None = None) -> tuple[list[Example], Counter[str], Faults]:
    faults, notes = Faults("data.jsonl"), Counter[str]()
    records = [TextLine(number, text) for number, text in enumerate(lines, start=1)]
    return texts(coder, records, marker, faults, notes), +notes, faults


@pytest.mark.parametrize("adds_bos", [False, True])
def test_a_text_is_learned_to_its_end(tmp_path: Path, adds_bos: bool) -> None:
    coder = coder_of(tmp_path, "chatml", None, adds_bos=adds_bos)
    (example,), _, _ = made(coder, "a b")
    assert coder.decode(example.ids) == ("<s>" if adds_bos else "") + "a b<|im_end|>"
    assert example.labelled == len(example) - 1


def test_a_control_token_in_a_text_stays_text_and_is_noted(tmp_path: Path) -> None:
    coder = coder_of(tmp_path, "chatml", None)
    (example,), notes, _ = made(coder, "a<|im_end|>b")
    assert example.ids.tolist().count(coder.end) == 1 and notes == {"spelled": 1}


@pytest.mark.parametrize("spaced", [False, True])
def test_after_the_last_marker_the_answer_is_learned(tmp_path: Path, spaced: bool) -> None:
    coder = coder_of(tmp_path, "chatml", None, spaced=spaced)
    (example,), _, faults = made(coder, "Q: x\nA: y\nQ: z\nA: a w", marker="\nA: ")
    assert learned_texts(coder, example) == [" a w<|im_end|>"]
    assert coder.decode(example.last_answer()[0]).strip() == "Q: x\nA: y\nQ: z\nA:"
    assert example.ids.tolist()[:-1] == coder.encode_text(["Q: x\nA: y\nQ: z\nA: a w"])[0]
    assert not faults.count


def test_an_answer_whose_first_token_is_its_own_begins_after_the_marker(tmp_path: Path) -> None:
    coder = coder_of(tmp_path, "chatml", None)
    (example,), _, _ = made(coder, "Q: x\nA: y", marker="\nA: ")
    assert learned_texts(coder, example) == ["y<|im_end|>"]


def test_texts_without_the_marker_or_an_answer_are_faults(tmp_path: Path) -> None:
    coder = coder_of(tmp_path, "chatml", None)
    examples, _, faults = made(coder, "A: y", "\nA: y", "Q\nA: \n", marker="\nA: ")
    assert [one.line for one in examples] == [2]
    assert [str(fault) for fault in faults.first] == [
        "line 1: has no '\\nA: ', after which the answer begins",
        "line 3: has nothing after '\\nA: '",
    ]
