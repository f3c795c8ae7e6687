import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sottovoce.audio import load_audio
from sottovoce.bundle import open_bundle
from sottovoce.errors import BundleError, InputError
from sottovoce.golden import FOLDER, Case, case_names, check_case, score, verify
from sottovoce.loading import Loaded
from sottovoce_compiler.pack import write_bundle

RAW: dict[str, Any] = {"audio": "golden/a.wav", "language": "en", "text": " a", "tokens": [5], "logprobs": [-0.1, -0.2]}


def repacked(bundle: Path, folder: Path, **changes: bytes | None) -> Path:
    """The bundle with files changed or left out, and every digest right: wrong, but nothing of it is damaged."""
    with zipfile.ZipFile(bundle) as archive:
        names = [name for name in archive.namelist() if not name.startswith("manifest.")]
        files = {name: archive.read(name) for name in names}
        fields = json.loads(archive.read("manifest.json"))
    for name, content in changes.items():
        files.pop(name) if content is None else files.update({name: content})
    del fields["format"], fields["files"]
    return write_bundle(folder / "wrong.svb", fields, files)


def content(bundle: Path, name: str) -> bytes:
    return open_bundle(bundle).read(name)


@pytest.mark.weights
def test_a_good_bundle_is_verified_with_speech_and_with_sound_without_speech(tiny_bundle: Path) -> None:
    found = verify(tiny_bundle)
    assert found.ok and found.failures == ()
    assert any("direct to heaven" in check for check in found.checks)
    assert any("no words in sound without speech" in check for check in found.checks)


@pytest.mark.weights
def test_one_thread_agrees_with_two(tiny_bundle: Path) -> None:
    assert verify(tiny_bundle, threads=1).ok


@pytest.mark.weights
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_wrong_weights_are_caught_though_every_digest_is_right(tiny_bundle: Path, tmp_path: Path, share: float) -> None:
    weights = bytearray(content(tiny_bundle, "weights.bin"))
    start = int(len(weights) * share)
    weights[start : start + 200_000] = np.random.default_rng(0).bytes(200_000)
    found = verify(repacked(tiny_bundle, tmp_path, **{"weights.bin": bytes(weights)}))
    assert not found.ok and found.failures
    assert all(failure.startswith(f"{FOLDER}case-0.json") for failure in found.failures)


@pytest.mark.weights
def test_a_case_that_says_something_else_fails_by_name_with_both_numbers(tiny_bundle: Path, tmp_path: Path) -> None:
    name = f"{FOLDER}case-0.json"
    case = json.loads(content(tiny_bundle, name))
    case["logprobs"] = [value - 0.5 for value in case["logprobs"]]
    found = verify(repacked(tiny_bundle, tmp_path, **{name: json.dumps(case).encode()}))
    (failure,) = found.failures
    assert failure.startswith(name) and "0.5" in failure and "0.15" in failure


@pytest.mark.weights
def test_tokens_that_are_not_the_likeliest_fail_though_their_probabilities_agree(tiny_bundle: Path) -> None:
    loaded = Loaded.open(tiny_bundle, 2)
    case = Case.of(json.loads(content(tiny_bundle, f"{FOLDER}case-0.json")), "case-0")
    samples = load_audio(content(tiny_bundle, case.audio))
    assert check_case(loaded, case, samples) == []
    shuffled = case.tokens[::-1]
    logprobs, _ = score(loaded, samples, case.language, shuffled)
    (failure,) = check_case(loaded, replace(case, tokens=shuffled, logprobs=tuple(logprobs)), samples)
    loaded.engine.close()
    assert "of the tokens are still the likeliest, fewer than 85%" in failure


@pytest.mark.weights
def test_speech_where_there_should_be_none_fails(tiny_bundle: Path, tmp_path: Path) -> None:
    speech = content(tiny_bundle, f"{FOLDER}case-0.wav")
    found = verify(repacked(tiny_bundle, tmp_path, **{f"{FOLDER}case-1.wav": speech}))
    assert found.failures == (f"{FOLDER}case-1.json: speech was found in sound that has none",)


@pytest.mark.weights
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokens": [10**6], "logprobs": [0, 0]}, "beyond the vocabulary"),
        ({"tokens": [-1], "logprobs": [0, 0]}, "token -1"),
        ({"tokens": [5, 6], "logprobs": [0]}, "2 tokens and 1 log"),
        ({"audio": "golden/none.wav"}, "none.wav"),
        ({"audio": "../secret.wav"}, "secret.wav"),
        ({"language": "xx"}, None),
        ({"logprobs": "NaN"}, None),
    ],
)
def test_a_case_that_makes_no_sense_is_a_failure_and_no_crash(
    tiny_bundle: Path, tmp_path: Path, changes: dict[str, Any], said: str | None
) -> None:
    name = f"{FOLDER}case-0.json"
    case = json.loads(content(tiny_bundle, name)) | changes
    if changes.get("logprobs") == "NaN":
        case["logprobs"] = [float("nan")] * (len(case["tokens"]) + 1)
    found = verify(repacked(tiny_bundle, tmp_path, **{name: json.dumps(case).encode()}))
    if changes == {"language": "xx"}:
        assert found.ok, "an English-only model has no language to be told"
        return
    assert not found.ok and (said is None or said in found.failures[0])


@pytest.mark.weights
def test_a_case_without_its_recording_is_a_failure(tiny_bundle: Path, tmp_path: Path) -> None:
    found = verify(repacked(tiny_bundle, tmp_path, **{f"{FOLDER}case-0.wav": None}))
    assert not found.ok and "case-0.wav" in found.failures[0]


def test_a_bundle_without_cases_proves_nothing(random_bundle: Path) -> None:
    assert case_names(open_bundle(random_bundle)) == []
    found = verify(random_bundle)
    assert not found.ok and "no golden cases" in found.failures[0]


@pytest.mark.parametrize("name", ["weights.bin", "tokens.bin", "manifest.json", "encoder.onnx"])
def test_a_damaged_file_is_named(random_bundle: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(random_bundle) as archive:
        archive.extractall(tmp_path / "folder")
    file = tmp_path / "folder" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    found = verify(tmp_path / "folder")
    assert not found.ok and len(found.failures) == 1 and name in found.failures[0]


def test_a_bundle_cut_short_is_a_failure(random_bundle: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.svb"
    shutil.copy(random_bundle, cut)
    with cut.open("r+b") as file:
        file.truncate(cut.stat().st_size // 2)
    assert not verify(cut).ok


def test_nothing_there_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no bundle at .*none\.svb"):
        verify(tmp_path / "none.svb")


def test_a_case_comes_back_as_it_was_written() -> None:
    case = Case("golden/a.wav", "en", " a b", (5, 6), (-0.1, -0.2, -0.3))
    assert Case.of(json.loads(json.dumps(case.to_json())), "x") == case


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": None},
        {"tokens": ["x"]},
        {"tokens": [float("inf")]},
        {"tokens": [-3]},
        {"tokens": [1] * 401, "logprobs": [0.0] * 402},
        {"logprobs": [0.0]},
        {"logprobs": [None, None]},
        {"audio": None, "tokens": 5},
    ],
)
def test_what_is_not_a_case_is_refused_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=r"case-7\.json"):
        Case.of(RAW | changes, "case-7.json")


@pytest.mark.parametrize("key", sorted(RAW))
def test_a_case_that_lacks_something_is_refused(key: str) -> None:
    with pytest.raises(BundleError, match=key):
        Case.of({name: value for name, value in RAW.items() if name != key}, "case-7.json")


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=200)
@given(st.one_of(json_values, st.fixed_dictionaries({name: json_values for name in RAW})))
def test_any_json_is_a_case_or_is_refused(raw: Any) -> None:
    try:
        case = Case.of(raw, "case-7.json")
    except BundleError:
        return
    assert not case.tokens or len(case.logprobs) == len(case.tokens) + 1


@pytest.mark.parametrize("data", [b"", b"\x80\x81", b"[", b"[]", b"5", b"null", b"[" * 100_000])
def test_a_case_that_is_no_json_is_a_failure_and_no_crash(random_bundle: Path, tmp_path: Path, data: bytes) -> None:
    found = verify(repacked(random_bundle, tmp_path, **{f"{FOLDER}case-0.json": data}))
    assert not found.ok and "case-0.json" in found.failures[0]
