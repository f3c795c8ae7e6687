import json
from pathlib import Path
from typing import Any

import pytest

from sottovoce.golden import verify
from sottovoce_compiler.pack import write_bundle
from sottovoce_compiler.report.chat_golden import TOKENS, chat_golden_files

from ..chat_compile_case import CHATML, chat_folder, compile_chat_to, needs_llama_cpp, short_text

REFUSES = (
    "{%- if messages[0].role == 'system' -%}{{ raise_exception('no system') }}{%- endif -%}"
    "{%- for message in messages -%}[{{ message.content }}]{%- endfor -%}"
)
REFUSES_ALL = "{{ raise_exception('never') }}"


def draft(folder: Path, template: str | None) -> tuple[Path, dict[str, Any]]:
    needs_llama_cpp()
    bundle = folder / "x.svb"
    compile_chat_to(chat_folder(folder / "nano", template), bundle, eval=short_text(folder), precision="int8")
    return bundle, {name: json.loads(data) for name, data in chat_golden_files(bundle).items()}  # type: ignore[arg-type]


def test_text_and_questions_are_answered_and_one_conversation_is_rendered(tmp_path: Path) -> None:
    bundle, files = draft(tmp_path, CHATML)
    assert sorted(files) == [*(f"golden/case-{number}.json" for number in range(4)), "golden/template.json"]
    for name in sorted(files)[:4]:
        case = files[name]
        assert 1 <= len(case["tokens"]) == len(case["logprobs"]) <= TOKENS and case["prompt"]
        assert all(value <= 0 and value == round(value, 4) for value in case["logprobs"])
    rendered = files["golden/template.json"]
    assert rendered["messages"][0]["role"] == "system" and rendered["rendered"].startswith("<s>system\nYou are a pilot")
    assert verify(bundle).ok, "these are the cases that the compile has sealed"
    assert chat_golden_files(bundle) == chat_golden_files(bundle)


@pytest.mark.parametrize(("template", "cases", "rendered"), [(REFUSES, 3, True), (REFUSES_ALL, 2, False)])
def test_a_conversation_that_the_template_refuses_is_no_case(
    template: str, cases: int, rendered: bool, tmp_path: Path
) -> None:
    bundle, files = draft(tmp_path, template)
    assert len(files) == cases + rendered and ("golden/template.json" in files) is rendered
    assert verify(bundle).ok


def test_a_model_without_a_template_continues_text(tmp_path: Path) -> None:
    bundle, files = draft(tmp_path, None)
    assert sorted(files) == ["golden/case-0.json", "golden/case-1.json"]
    assert verify(bundle).ok


def test_a_case_that_was_changed_does_not_verify(tmp_path: Path) -> None:
    from sottovoce.bundle import open_bundle

    bundle, files = draft(tmp_path, CHATML)
    opened = open_bundle(bundle)
    contents: dict[str, bytes | Path] = {name: opened.read(name) for name in opened.manifest.files}
    case = dict(files["golden/case-0.json"])
    case["tokens"] = [(token + 1) % 200 for token in case["tokens"]]
    contents["golden/case-0.json"] = json.dumps(case).encode()
    fields = {key: value for key, value in opened.manifest.raw.items() if key not in ("files", "format")}
    result = verify(write_bundle(tmp_path / "changed.svb", fields, contents))
    assert not result.ok and any("case-0" in failure for failure in result.failures)
