import json
import math
from pathlib import Path
from typing import Any

import pytest

from sottovoce.errors import InputError
from sottovoce_compiler.report.dataset import read_manifest

GOOD = {"file": "a.wav", "text": "hello", "language": "EN", "seconds": 1.5, "kind": "read", "licence": "MIT"}


def write(folder: Path, *lines: "dict[str, Any] | str") -> Path:
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(name.encode())
    manifest = folder / "set.jsonl"
    manifest.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return manifest


def test_a_manifest_gives_clips_with_paths_beside_it(tmp_path: Path) -> None:
    dataset = read_manifest(write(tmp_path, GOOD, "", {"file": "b.wav", "text": None, "seconds": 2, "kind": "noise"}))
    speech, noise = dataset.clips
    assert (speech.name, speech.file, speech.language, speech.seconds) == (
        "a.wav",
        tmp_path / "a.wav",
        "en",
        1.5,
    )
    assert (speech.is_speech, noise.is_speech) == (True, False)
    assert (dataset.name, dataset.seconds) == ("set.jsonl", 3.5)


def test_a_clip_with_an_empty_text_is_no_speech(tmp_path: Path) -> None:
    assert not read_manifest(write(tmp_path, GOOD | {"text": " "})).clips[0].is_speech


def test_a_length_that_is_missing_is_measured(tmp_path: Path) -> None:
    import soundfile

    manifest = write(tmp_path, {"file": "a.wav", "text": "hello"})
    soundfile.write(tmp_path / "a.wav", [0.0] * 4000, 8000)
    assert read_manifest(manifest).clips[0].seconds == 0.5


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("{broken", "not JSON"),
        ("[1]", "a JSON list"),
        ({"text": "hello"}, "field file"),
        (GOOD | {"file": 3}, "field file"),
        (GOOD | {"file": "missing.wav"}, "missing.wav"),
        ({"file": "b.wav", "seconds": 1}, "field text"),
        (GOOD | {"text": 7}, "field text"),
        (GOOD | {"language": 1}, "field language"),
        (GOOD | {"seconds": "long"}, "field seconds"),
        (GOOD | {"seconds": -1}, "field seconds"),
        (GOOD | {"seconds": math.nan}, "field seconds"),
        (GOOD | {"seconds": True}, "field seconds"),
        (GOOD | {"kind": "music"}, "kind 'music'"),
        ({"file": "b.wav", "text": "not audio"}, "give seconds"),
    ],
)
def test_a_fault_is_named_with_its_line_and_field(tmp_path: Path, line: "dict[str, Any] | str", names: str) -> None:
    second = GOOD | {"file": "b.wav"}
    with pytest.raises(InputError) as caught:
        read_manifest(write(tmp_path, second if line == GOOD else GOOD | {"file": "a.wav"}, line))
    assert "set.jsonl line 2: " in str(caught.value)
    assert names in str(caught.value)


def test_a_file_that_stands_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 3: file 'a.wav' stands on line 1"):
        read_manifest(write(tmp_path, GOOD, GOOD | {"file": "b.wav"}, GOOD))


def test_an_empty_or_missing_manifest_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no clips"):
        read_manifest(write(tmp_path, "", " "))
    with pytest.raises(InputError, match="no manifest"):
        read_manifest(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize("change", ["text", "audio", "language"])
def test_the_digest_changes_with_anything_that_is_measured(tmp_path: Path, change: str) -> None:
    before = read_manifest(write(tmp_path, GOOD)).sha256
    manifest = tmp_path / "set.jsonl"
    if change == "audio":
        (tmp_path / "a.wav").write_bytes(b"other")
    else:
        manifest = write(tmp_path, GOOD | {change: "de"})
    assert read_manifest(manifest).sha256 != before


def test_the_digest_does_not_know_where_the_data_lies(tmp_path: Path) -> None:
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    one, two = (read_manifest(write(folder, GOOD)).sha256 for folder in folders)
    assert one == two
