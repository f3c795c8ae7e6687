"""whisper-tiny.en as Core ML packages, evaluated on real speech: what transformers says in float32, word for word."""

from itertools import pairwise
from pathlib import Path

import pytest

import sottovoce
from sottovoce.bundle import open_bundle
from sottovoce_compiler.families.whisper import whisper_spec
from sottovoce_compiler.lowerings.coreml.evaluator.reading import read_package
from sottovoce_compiler.lowerings.formats import measurable
from sottovoce_compiler.pack import write_bundle
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.report.reference import SourceModel
from sottovoce_compiler.report.source import load_samples
from sottovoce_compiler.request import Request
from sottovoce_compiler.sources import Checkpoint, resolve
from sottovoce_compiler.speech_pipeline import lower, manifest_fields
from sottovoce_targets import load_target

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return resolve("whisper-tiny.en")


@pytest.fixture(scope="module")
def bundle(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    asked = Request("whisper-tiny.en", load_target("ios"), folder / "tiny.svb", {}, "int8")
    spec = whisper_spec(checkpoint)
    lowered = lower(asked, checkpoint, spec, folder, lambda done: None)
    return write_bundle(folder / "tiny.svb", manifest_fields(asked, checkpoint, spec, lowered), lowered.files)


def test_the_transcript_is_the_sources_and_words_have_their_times(checkpoint: Checkpoint, bundle: Path) -> None:
    clip = min((clip for clip in builtin_set().clips if clip.is_speech), key=lambda clip: abs(clip.seconds - 8))
    wanted = SourceModel(checkpoint).transcribe([load_samples(clip.file)], ["en"])[0].text
    with measurable("coreml"):
        segments = list(sottovoce.Transcriber(bundle).transcribe(str(clip.file), word_timestamps=True)[0])
    assert "".join(segment.text for segment in segments).split() == wanted.split()
    words = [word for segment in segments for word in segment.words or ()]
    assert len(words) == len(wanted.split())
    assert all(0 <= word.start <= word.end <= clip.seconds + 0.1 for word in words)
    assert all(a.start <= b.start for a, b in pairwise(words))


def test_an_8_bit_bundle_is_a_quarter_of_float32(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert opened.size < 48e6
    names = {name.split("/")[0] for name in opened.manifest.files if "/" in name}
    assert names == {"MelSpectrogram.mlpackage", "AudioEncoder.mlpackage", "TextDecoder.mlpackage"}


def test_the_packages_have_the_inputs_and_outputs_that_whisperkit_asks_for(bundle: Path, tmp_path: Path) -> None:
    from sottovoce.engines.coreml_files import unpack

    opened = open_bundle(bundle)
    found = {}
    for name in ("MelSpectrogram", "AudioEncoder", "TextDecoder"):
        main = read_package(unpack(opened, name, tmp_path)).functions["main"]
        found[name] = {one.name: (one.kind, one.shape) for one in main.inputs}
        found[name] |= {one: None for one in main.outputs}
    half, mask = "FLOAT16", ("FLOAT16", (1, 448))
    cache = (half, (1, 4 * 384, 1, 448))
    assert found == {
        "MelSpectrogram": {"audio": (half, (480_000,)), "melspectrogram_features": None},
        "AudioEncoder": {"melspectrogram_features": (half, (1, 80, 1, 3000)), "encoder_output_embeds": None},
        "TextDecoder": {
            **{"input_ids": ("INT32", (1,)), "cache_length": ("INT32", (1,)), "key_cache": cache, "value_cache": cache},
            **{"kv_cache_update_mask": mask, "decoder_key_padding_mask": mask},
            "encoder_output_embeds": (half, (1, 384, 1, 1500)),
            **dict.fromkeys(("logits", "key_cache_updates", "value_cache_updates", "alignment_heads_weights")),
        },
    }
