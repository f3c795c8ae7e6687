import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from sottovoce.errors import BundleError, EngineError, InputError
from sottovoce.loading import Loaded, Recording
from sottovoce.tokens import pack_tokens
from sottovoce.types import TranscribeOptions
from sottovoce.vad import FRAME, SAMPLE_RATE, Span
from sottovoce_compiler.pack import write_bundle


def changed(bundle: Path, folder: Path, files: dict[str, bytes] | None = None, **fields: Any) -> Path:
    """The bundle with other files or manifest fields, whole and with every digest right."""
    with zipfile.ZipFile(bundle) as archive:
        contents = {name: archive.read(name) for name in archive.namelist() if not name.startswith("manifest.")}
        manifest = json.loads(archive.read("manifest.json"))
    del manifest["format"], manifest["files"]
    return write_bundle(folder / "changed.svb", manifest | fields, contents | (files or {}))


@pytest.mark.parametrize(("key", "value"), [("task", "chat"), ("family", "llama")])
def test_a_bundle_for_something_else_is_refused_by_name(
    random_bundle: Path, tmp_path: Path, key: str, value: str
) -> None:
    with pytest.raises(BundleError, match=f"changed.svb .*'{value}'"):
        Loaded.open(changed(random_bundle, tmp_path, **{key: value}), 1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"step": 0}, "step = 0; 0.05 to 10 is possible"),
        ({"window": "15"}, "window = '15'"),
        ({"vad_threshold": [1] * 9999}, "vad_threshold = "),
        ({"initial_prompt": "Ada"}, "no stream setting 'initial_prompt'"),
        ({"\x1b[31m": 1}, "no stream setting"),
    ],
)
def test_streaming_settings_that_make_no_sense_are_refused_by_name(
    random_bundle: Path, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(BundleError) as caught:
        Loaded.open(changed(random_bundle, tmp_path, stream=settings), 1)
    told = str(caught.value)
    assert f"changed.svb: manifest.json: stream: {said}" in told
    assert len(told) < 400 + len(str(tmp_path)) and "\x1b" not in told


def test_a_token_table_that_is_too_short_is_refused(random_bundle: Path, tmp_path: Path) -> None:
    short = changed(random_bundle, tmp_path, {"tokens.bin": pack_tokens([b"a", b"b"])})
    with pytest.raises(BundleError, match="2 tokens, fewer than"):
        Loaded.open(short, 1)


def test_a_network_that_is_no_network_is_one_of_our_errors(random_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises((BundleError, EngineError)):
        Loaded.open(changed(random_bundle, tmp_path, {"vad.onnx": b"not a network"}), 1)


@pytest.mark.parametrize("place", ["/etc/hostname", "../outside.bin", "outside.bin"])
def test_a_voice_activity_network_cannot_read_files_outside_the_bundle(
    random_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "outside.bin").write_bytes(bytes(64))
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4], data_location="EXTERNAL")
    for key, value in (("location", place), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["w"], ["y"])], "g", [], [output], [tensor])
    network = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    bundle = changed(random_bundle, tmp_path / "inner", {"vad.onnx": network.SerializeToString()})
    with pytest.raises(BundleError, match="no file of the bundle"):
        Loaded.open(bundle, 1)


def test_a_recordings_speech_is_what_its_pieces_hold() -> None:
    recording = Recording(np.zeros(10 * SAMPLE_RATE, np.float32), (Span(0, SAMPLE_RATE), Span(32_000, 64_000)))
    assert (recording.duration, recording.speech) == (10.0, 3.0)


def test_without_voice_activity_in_the_bundle_all_of_the_audio_is_pieces(random_bundle: Path) -> None:
    loaded = Loaded.open(random_bundle, 1)
    assert loaded.vad is None
    samples = np.zeros(40 * SAMPLE_RATE, np.float32)
    pieces = loaded.cut(samples, TranscribeOptions()).pieces
    assert pieces[0].start == 0 and pieces[-1].end == samples.size
    assert sum(piece.end - piece.start for piece in pieces) == samples.size
    assert len(loaded.cut(samples[: 12 * SAMPLE_RATE], TranscribeOptions()).pieces) == 1
    loaded.engine.close()


@pytest.mark.weights
def test_with_the_filter_off_a_long_recording_is_still_cut_at_pauses(tiny_bundle: Path) -> None:
    loaded = Loaded.open(tiny_bundle, 1)
    samples = np.random.default_rng(0).normal(0, 0.05, 40 * SAMPLE_RATE).astype(np.float32)

    class Stub:
        def probabilities(self, samples: np.ndarray) -> np.ndarray:
            found = np.ones(-(-samples.size // FRAME), np.float32)
            found[[300, 700]] = 0.1
            return found

    object.__setattr__(loaded, "vad", Stub())
    pieces = loaded.cut(samples, TranscribeOptions(vad_filter=False)).pieces
    assert [piece.end // FRAME for piece in pieces[:2]] == [300, 700]
    assert pieces[0].start == 0 and pieces[-1].end == samples.size
    loaded.engine.close()


def test_a_suppressed_token_beyond_the_vocabulary_is_refused(random_bundle: Path) -> None:
    loaded = Loaded.open(random_bundle, 1)
    with pytest.raises(InputError, match="99999; this model's tokens are below 51865"):
        loaded.check(TranscribeOptions(suppress_tokens=(-1, 99999)))
    loaded.check(TranscribeOptions(suppress_tokens=(-1, 51864)))
    loaded.engine.close()
