from pathlib import Path

import pytest

from sottovoce_compiler.sources import KINDS, SourceError, resolve
from sottovoce_compiler.sources.pins import read_pins


def kind_of(spec: str) -> str:
    return next((kind.title for kind in KINDS if kind.matches(spec)), "none")


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("whisper-base", "short name"),
        ("distil-large-v3", "short name"),
        ("pypi:a==1", "Python packages"),
        ("pypi:nonsense", "Python packages"),
        ("hf:openai/whisper-base", "Hub, written out"),
        ("hf:nonsense", "Hub, written out"),
        ("openai/whisper-base", "Hub"),
        ("openai/whisper-base@refs/pr/3", "Hub"),
        ("distil-whisper/distil-large-v3.5@3b1a8e0", "Hub"),
        ("./whisper-base", "folder"),
        ("/models/whisper", "folder"),
        ("~/whisper", "folder"),
        ("models/whisper/base", "folder"),
        ("C:\\models\\whisper", "folder"),
        ("whisper-bass", "none"),
        ("", "none"),
    ],
)
def test_the_kind_of_a_source_is_seen_from_its_form(spec: str, kind: str) -> None:
    assert kind_of(spec) == kind


def test_a_folder_that_exists_is_meant_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "openai" / "whisper-base").mkdir(parents=True)
    (tmp_path / "whisper-base").mkdir()
    monkeypatch.chdir(tmp_path)
    assert kind_of("openai/whisper-base") == "folder"
    assert kind_of("whisper-base") == "short name"
    assert kind_of("./whisper-base") == "folder"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("whisper-bas", "did you mean whisper-base"),
        ("whisper-tinny.en", "did you mean whisper-tiny.en"),
        ("Whisper-Base", "did you mean whisper-base"),
        ("qqqq", "short names are .*whisper-base"),
        ("", "short names are"),
    ],
)
def test_an_unknown_name_suggests_close_ones(spec: str, expected: str) -> None:
    with pytest.raises(SourceError, match=expected) as caught:
        resolve(spec)
    assert repr(spec) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["./nowhere", "/nowhere/at/all"])
def test_a_missing_folder_is_named(spec: str) -> None:
    with pytest.raises(SourceError, match=rf"there is no folder {Path(spec)}"):
        resolve(spec)


def test_a_folder_of_something_else_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SourceError) as caught:
        resolve(str(tmp_path))
    for name in (str(tmp_path), "model.bin", "config.json", "model.safetensors", "pytorch_model.bin"):
        assert name in str(caught.value)


def test_a_file_and_an_adapter_are_told_from_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").touch()
    with pytest.raises(SourceError, match="is a file; give the folder"):
        resolve(str(tmp_path / "adapter_config.json"))
    with pytest.raises(SourceError, match=r"is a LoRA adapter.*--adapter"):
        resolve(str(tmp_path))


def test_a_source_error_is_wrong_input_to_the_command_line() -> None:
    assert SourceError("x").exit_code == 2
    assert isinstance(SourceError("x"), ValueError)


def test_every_short_name_leads_to_a_pinned_package_or_to_the_hub() -> None:
    from sottovoce_compiler.sources import hub, pypi

    for name, named in read_pins().names.items():
        if named.spec.startswith("pypi:"):
            assert named.licence, name
            assert all(package.sha256 for package in pypi.parse(named.spec)), name
        else:
            assert hub.parse(named.spec) is not None, name
