"""The lines that docs/finetune.md shows are lines that are read, and learned as it says."""

import json
import re
from pathlib import Path

from tests.runtime.chat.template_case import FAMILIES

from sottovoce_compiler.finetune.data.dataset import TextData, TextOptions
from sottovoce_compiler.finetune.data.lines import check_lines
from sottovoce_compiler.finetune.data.records import FORMS

from .data_case import checkpoint_of, learned_texts, write_lines

DOCUMENT = Path(__file__).parents[4] / "docs" / "finetune.md"


def documented() -> list[str]:
    (block,) = re.findall(r"^```json\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[:1]
    return str(block).splitlines()


def test_every_line_in_the_document_is_read_and_every_kind_is_there(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("one", "two"):
        (tmp_path / "clips" / f"{name}.wav").write_bytes(b"")
    kinds = [check_lines(write_lines(tmp_path / "data.jsonl", [line])).kind for line in documented()]
    assert set(kinds) == {form.kind for form in FORMS}


def test_they_are_learned_as_the_document_says(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tmp_path, "chatml", FAMILIES["chatml"])
    learned, asked = [], []
    for line in documented()[:5]:
        file = write_lines(tmp_path / "data.jsonl", [line])
        marker = "\nA: " if "text" in json.loads(line) else None
        data = TextData.load(file, checkpoint, TextOptions(answer_marker=marker))
        learned += learned_texts(data.coder, data.train[0])
        asked.append(data.coder.decode(data.train[0].last_answer()[0]))
    assert [one.removesuffix("<|im_end|>").strip() for one in learned] == ["Hello!", "Hello!", "Bonjour", "4", "4"]
    assert asked[3] == "Q: What is 2 + 2?\nA:"
