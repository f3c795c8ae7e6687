"""LoRA adapters while a Whisper runs: they do what merging them does, belong to one base, and leave nothing behind."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from speech_adapter_case import MODULES, adapter_file, checkpoint, fp32_bundle, lora_folder
from wave_case import wave

from sottovoce import Transcriber
from sottovoce.bundle import open_bundle
from sottovoce.cli import main
from sottovoce.engines.onnxruntime import OnnxWhisper
from sottovoce.engines.speech_adapter import slots_of
from sottovoce.errors import BundleError, InputError
from sottovoce.gguf import read_gguf
from sottovoce_compiler.adapter import with_adapter
from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.lowerings.onnx.speech_adapter import slots
from sottovoce_compiler.sources.peft import open_adapter

FED = np.array([[50258, 50259, 50359, 50363, 300, 4000, 27, 511]], np.int64)
CLIP = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fp32_bundle(checkpoint(), tmp_path_factory.mktemp("base") / "base.svb")


@pytest.fixture
def engine(bundle: Path) -> Iterator[OnnxWhisper]:
    engine = OnnxWhisper(open_bundle(bundle), 1)
    yield engine
    engine.close()


def logits(engine: OnnxWhisper) -> np.ndarray:
    return engine.start([CLIP], 20).run(FED, list(range(8)))[0].copy()


def test_an_adapter_does_what_merging_it_into_the_weights_does(engine: OnnxWhisper, tmp_path: Path) -> None:
    plain = logits(engine)
    engine.attach(read_gguf(adapter_file(tmp_path)), 1.0)
    merged = with_adapter(checkpoint(), open_adapter(tmp_path / "lora"))
    expected = logits(OnnxWhisper(open_bundle(fp32_bundle(merged, tmp_path / "merged.svb")), 1))
    assert np.abs(expected - plain).mean() > 0.05
    np.testing.assert_allclose(logits(engine), expected, rtol=1e-4, atol=5e-4)


def test_every_place_of_the_graphs_is_one_that_an_adapter_file_may_name(engine: OnnxWhisper) -> None:
    found = slots_of(engine._sessions("encoder-adapted.onnx", "decoder-adapted.onnx"))
    assert found.keys() == {slot.name for slot in slots(whisper_spec(checkpoint()))}


def test_detaching_gives_the_base_back_to_the_bit(engine: OnnxWhisper, tmp_path: Path) -> None:
    plain = logits(engine)
    first, second = (read_gguf(adapter_file(tmp_path, name, seed=seed)) for name, seed in (("one", 1), ("two", 2)))
    engine.attach(first, 1.0)
    one = logits(engine)
    engine.attach(second, 0.5)
    both = logits(engine)
    assert engine.adapters == 2 and np.abs(both - one).mean() > 0.01
    engine.detach(1)
    assert np.array_equal(logits(engine), one)
    engine.detach()
    assert engine.adapters == 0 and np.array_equal(logits(engine), plain)


def test_adapters_add_up_and_count_as_often_as_their_scale(engine: OnnxWhisper, tmp_path: Path) -> None:
    file = read_gguf(adapter_file(tmp_path))
    engine.attach(file, 1.0)
    once = logits(engine)
    engine.detach()
    engine.attach(file, 0.25)
    engine.attach(file, 0.75)
    np.testing.assert_allclose(logits(engine), once, rtol=1e-4, atol=5e-4)


def test_decoding_that_has_begun_goes_on_without_an_adapter_attached_later(engine: OnnxWhisper, tmp_path: Path) -> None:
    expected = logits(engine)
    batch = engine.start([CLIP], 20)
    first = batch.run(FED[:, :4], [3]).copy()
    engine.attach(read_gguf(adapter_file(tmp_path)), 1.0)
    rest = batch.run(FED[:, 4:], [3]).copy()
    np.testing.assert_allclose(np.stack([first[0, 0], rest[0, 0]]), expected[[3, 7]], rtol=1e-4, atol=2e-4)


def test_a_closed_engine_opens_again_with_what_was_attached(engine: OnnxWhisper, tmp_path: Path) -> None:
    engine.attach(read_gguf(adapter_file(tmp_path)), 1.0)
    adapted = logits(engine)
    engine.close()
    assert np.array_equal(logits(engine), adapted)
    engine.close()
    engine.detach()
    assert not np.array_equal(logits(engine), adapted)


def test_half_precision_is_half_the_size_and_nearly_the_same(engine: OnnxWhisper, tmp_path: Path) -> None:
    whole, half = adapter_file(tmp_path, "whole"), adapter_file(tmp_path, "half", "fp16")
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    engine.attach(read_gguf(whole), 1.0)
    expected = logits(engine)
    engine.detach()
    engine.attach(read_gguf(half), 1.0)
    np.testing.assert_allclose(logits(engine), expected, rtol=1e-2, atol=2e-2)


def test_a_transcriber_takes_an_adapter_and_drops_it(bundle: Path, tmp_path: Path) -> None:
    path = adapter_file(tmp_path)
    with Transcriber(bundle, threads=1) as transcriber:

        def heard() -> object:
            return transcriber.transcribe(CLIP, vad_filter=False)[1].all_language_probs

        plain = heard()
        transcriber.attach_adapter(path)
        assert heard() != plain
        transcriber.detach_adapters()
        assert heard() == plain


def test_an_adapter_of_another_base_is_refused_and_nothing_changes(bundle: Path, tmp_path: Path) -> None:
    path = adapter_file(tmp_path)
    other = tmp_path / "other.gguf"
    other.write_bytes(path.read_bytes().replace(b"a" * 64, b"b" * 64))
    with Transcriber(bundle, threads=1) as transcriber:
        with pytest.raises(InputError, match=r"made for another model than random: .* SHA-256 bbbbbbbbbbbb"):
            transcriber.attach_adapter(other)
        with pytest.raises(InputError, match=r"is a folder; make a file of it with: sottovoce adapter"):
            transcriber.attach_adapter(tmp_path / "lora")
        with pytest.raises(InputError, match="scale = 0"):
            transcriber.attach_adapter(path, scale=0)
        with pytest.raises(InputError, match="changes nothing"):
            transcriber.attach_adapter(path, scale=1e-30)
        assert transcriber._loaded is not None and transcriber._loaded.engine.adapters == 0


def test_damaged_bytes_are_refused_by_what_is_wrong(engine: OnnxWhisper, tmp_path: Path) -> None:
    path = adapter_file(tmp_path)
    data = path.read_bytes()
    name = b"encoder.layers.1.fc1"

    def refused(changed: bytes, said: str) -> None:
        path.write_bytes(changed)
        with pytest.raises((InputError, BundleError), match=said):
            engine.attach(read_gguf(path), 1.0)
        assert engine.adapters == 0

    refused(data[: len(data) // 2], "ends at")
    refused(data.replace(name, b"encoder.layers.7.fc1"), r"encoder\.layers\.7\.fc1, which this bundle has no place for")
    refused(data.replace(b"lora_b", b"lora_x"), "does not have both matrices of")
    refused(data.replace(b"whisper", b"whisker"), "no LoRA adapter for speech: it says adapter, lora, whisker")
    refused(data[:-4] + np.float32(np.nan).tobytes(), "does not hold finite numbers")


def test_another_width_is_refused_by_its_shapes(engine: OnnxWhisper, tmp_path: Path) -> None:
    path = adapter_file(tmp_path, modules={"model.encoder.layers.1.fc1": MODULES["model.encoder.layers.1.fc1"]})
    path.write_bytes(path.read_bytes().replace(b"encoder.layers.1.fc1", b"encoder.layers.1.fc2"))
    with pytest.raises(
        InputError, match=r"has A \(2, 64\) and B \(128, 2\); here they are \(rank, 128\) and \(64, ran"
    ):
        engine.attach(read_gguf(path), 1.0)


def test_a_bundle_without_room_says_so(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sottovoce.engines.onnxruntime.ADAPTED_ENCODER", "absent.onnx")
    engine = OnnxWhisper(open_bundle(bundle), 1)
    with pytest.raises(BundleError, match="compiled without room for adapters; compile it again"):
        engine.attach(read_gguf(adapter_file(tmp_path)), 1.0)


def test_the_command_line_takes_adapters(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clip.wav").write_bytes(wave(CLIP))
    command = ["transcribe", str(bundle), str(tmp_path / "clip.wav"), "--no-vad", "--json"]
    assert main(command) == 0
    plain = capsys.readouterr().out
    assert main([*command, "--adapter", str(adapter_file(tmp_path))]) == 0
    assert capsys.readouterr().out != plain
    assert main([*command, "--adapter", str(lora_folder(tmp_path / "folder"))]) == 2
    assert "make a file of it with: sottovoce adapter" in capsys.readouterr().err
