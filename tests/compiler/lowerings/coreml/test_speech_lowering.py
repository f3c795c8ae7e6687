"""A speech model compiled for iOS: what the bundle has, and what its report says of what was not measured."""

from pathlib import Path

import pytest

from sottovoce.bundle import open_bundle
from sottovoce.errors import InputError
from sottovoce_compiler.commands import evaluate
from sottovoce_compiler.pipeline import compile_model
from sottovoce_compiler.request import Request
from sottovoce_compiler.speech_pipeline import speech_format
from sottovoce_targets import load_target

from ...pipeline_case import nothing_slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ios") / "random.svb"
    with nothing_slow():
        parts = "encoder int8, decoder fp16, head int8"
        compile_model(Request("random", load_target("ios"), path, precision=parts))
    return path


def test_the_stream_is_not_measured_and_the_report_says_so(bundle: Path) -> None:
    report = open_bundle(bundle).report()
    assert report["stream"] is None
    assert any("the stream was not measured" in note for note in report["notes"])
    assert any("iOS 17 or macOS 14" in note for note in report["notes"])
    assert not any("stream" in check["name"] for check in report["gate"]["checks"])
    assert report["cost"]["precision"] == {"encoder": "int8", "decoder": "fp16", "head": "int8"}
    assert "coremltools" in report["versions"]


def test_the_manifest_says_what_runs_it(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    assert (manifest.engine.name, manifest.engine.min_version, manifest.engine.opset) == ("coreml", "9.0", 8)
    assert manifest.model["alignment_heads"] == 1
    assert "TextDecoder.mlpackage/Data/com.apple.CoreML/weights/weight.bin" in manifest.files


def test_a_stream_that_an_evaluator_would_run_is_refused_before_it_begins(bundle: Path) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    with pytest.raises(InputError, match="is made for coreml, and what stands in for it here takes seconds a step"):
        evaluate.run(parser.parse_args([str(bundle), "--stream"]))


def test_a_precision_that_core_ml_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match="'fp32' is not one of the format coreml; speech has fp16, int8, int4, pal6"):
        speech_format(Request("random", load_target("ios"), Path("x.svb"), precision="fp32"))
