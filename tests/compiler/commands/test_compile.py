"""The command as a user meets it: exit codes, streams, and what is left where the bundle should be."""

import json
from pathlib import Path

import pytest

from sottovoce.bundle import open_bundle
from sottovoce.cli import main
from sottovoce.golden import verify
from sottovoce_compiler.lowerings.onnx.graph import Graph
from sottovoce_compiler.lowerings.onnx.linear import Linear
from sottovoce_compiler.lowerings.onnx.whisper import WhisperLowering
from sottovoce_compiler.report.builtin import builtin_set

from ..pipeline_case import nothing_slow


def compile_command(output: Path, *more: str, source: str = "random", target: str = "linux-x86-64") -> int:
    return main(["compile", source, "--target", target, "-o", str(output), *more])


def test_the_result_is_on_stdout_and_the_stages_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with nothing_slow():
        assert compile_command(tmp_path / "x.svb") == 0
    out, err = capsys.readouterr()
    assert "WER 0.0%" in out and "x.svb: " in out and " MB" in out
    assert [line for line in err.splitlines() if line][:3] == [
        "sottovoce: resolve",
        "sottovoce: lower",
        "sottovoce: pack",
    ]


def test_json_is_one_object_with_the_keys_of_the_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with nothing_slow():
        assert compile_command(tmp_path / "x.svb", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bundle"] == str(tmp_path / "x.svb")
    assert found["bytes"] == (tmp_path / "x.svb").stat().st_size
    assert {"data", "quality", "gate", "cost", "versions"} <= set(found["report"])


def test_a_gate_that_does_not_hold_is_exit_1_with_the_table_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with nothing_slow(artifact="the rest"):
        assert compile_command(tmp_path / "x.svb", "--json") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "clips that lost" in err and "the rest" in err
    assert err.splitlines()[-1].startswith("sottovoce: error: the gate does not hold: word error rate")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_can_allow_more_than_the_target(tmp_path: Path) -> None:
    with nothing_slow(artifact="the rest"):
        assert compile_command(tmp_path / "x.svb", "--max-wer-increase", "0.8") == 0
        assert compile_command(tmp_path / "y.svb", "--max-wer-increase", "-1") == 1
    assert [item.name for item in tmp_path.iterdir()] == ["x.svb"]


def test_the_precision_is_the_targets_unless_asked_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with nothing_slow():
        for more, encoder in ((["--json"], "int8"), (["--json", "--precision", "fp32"], "float32")):
            compile_command(tmp_path / "x.svb", *more)
            report = json.loads(capsys.readouterr().out)["report"]
            assert report["cost"]["precision"]["encoder"].startswith(encoder)


def test_the_stream_is_in_the_report_and_how_fast_it_is_here_only_where_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with nothing_slow():
        compile_command(tmp_path / "x.svb", "--json")
        plain = json.loads(capsys.readouterr().out)["report"]
        compile_command(tmp_path / "x.svb", "--json", "--timings")
        timed = json.loads(capsys.readouterr().out)["report"]
    assert plain["stream"] == timed["stream"] and plain["stream"]["compute"] == "not charged"
    assert "measured" not in plain and timed["measured"]["compute"] == "charged"


def test_a_stream_that_is_worse_than_its_limit_is_exit_1_with_the_table_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with nothing_slow(stream="the rest"):
        assert compile_command(tmp_path / "x.svb", "--json") == 1
        out, err = capsys.readouterr()
        assert out == "" and list(tmp_path.iterdir()) == []
        assert "text of the stream" in err and "the rest" in err and "hold_back 0.5" in err
        assert "the gate does not hold: streaming word error rate" in err.splitlines()[-1]
        assert compile_command(tmp_path / "x.svb", "--max-stream-wer-increase", "0.8") == 0
    assert [item.name for item in tmp_path.iterdir()] == ["x.svb"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "raspberry-pi-9"}, "unknown target 'raspberry-pi-9'; did you mean raspberry-pi-"),
        ({"source": "whisper-bass"}, "whisper-bass"),
        ({"source": "./nowhere"}, "nowhere"),
    ],
)
def test_what_is_not_known_is_exit_2_and_names_it(
    changes: dict[str, str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compile_command(tmp_path / "x.svb", **changes) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [("{", "1"), ('{"file": "gone.wav", "text": "x"}', "gone.wav"), ('{"text": "x"}', "file")],
)
def test_a_bad_manifest_is_exit_2_and_names_the_line(
    line: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "set.jsonl"
    manifest.write_text(line)
    assert compile_command(tmp_path / "x.svb", "--eval", str(manifest), source="whisper-tiny.en") == 2
    assert said in capsys.readouterr().err
    assert compile_command(tmp_path / "x.svb", "--eval", str(tmp_path / "none.jsonl"), source="whisper-tiny.en") == 2
    assert [item.name for item in tmp_path.iterdir()] == ["set.jsonl"]


def test_a_limit_that_is_no_number_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for limit in ("max_wer_increase", "max_stream_wer_increase"):
        assert compile_command(tmp_path / "x.svb", "--" + limit.replace("_", "-"), "nan") == 2
        assert f"{limit} is nan" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compile_command(tmp_path / "no" / "x.svb", source="whisper-tiny.en") == 2
    assert "create it first" in capsys.readouterr().err


@pytest.fixture(scope="module")
def real_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """whisper-tiny.en; what its source says of the built-in set is in the user's cache after the first run."""
    path = tmp_path_factory.mktemp("real") / "tiny.svb"
    assert compile_command(path, source="whisper-tiny.en") == 0
    return path


@pytest.mark.weights
def test_a_real_bundle_verifies_and_says_how_good_it_is(real_bundle: Path) -> None:
    assert [item.name for item in real_bundle.parent.iterdir()] == [real_bundle.name]
    result = verify(real_bundle)
    assert result.ok, result.failures
    quality = open_bundle(real_bundle).report()["quality"]
    assert quality["source"]["wer"] < 0.05
    assert quality["artifact"]["wer"] <= quality["source"]["wer"] + 0.01
    stream = open_bundle(real_bundle).report()["stream"]
    assert stream["compute"] == "not charged" and "machine" not in stream
    assert stream["word_ends"]["matched"] > 100 and stream["wer_increase"] <= 0.03
    assert stream["settings"].items() >= open_bundle(real_bundle).manifest.stream.items() > set()
    assert real_bundle.stat().st_size < 44e6, "no larger than whisper.cpp's q8_0 file"


@pytest.mark.weights
def test_a_second_compile_of_a_real_model_gives_the_same_bytes(real_bundle: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.svb"
    assert compile_command(again, source="whisper-tiny.en") == 0
    assert again.read_bytes() == real_bundle.read_bytes()


@pytest.mark.weights
def test_a_real_model_with_a_layer_of_zeros_does_not_pass_and_the_bundle_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = builtin_set().clips[3]
    manifest = tmp_path / "one.jsonl"
    manifest.write_text(json.dumps({"file": str(clip.file), "text": clip.text, "language": "en"}))
    output = tmp_path / "x.svb"
    arguments = ("--eval", str(manifest), "--precision", "fp16")
    assert compile_command(output, *arguments, source="whisper-tiny.en") == 0
    before = output.read_bytes()
    plain = WhisperLowering._linear

    def zeroed(self: WhisperLowering, g: Graph, x: str, name: str, linear: Linear) -> str:
        if name != "decoder.layers.2.encoder_attn.out_proj":
            return plain(self, g, x, name, linear)
        return plain(
            WhisperLowering(self.spec, lambda key: self.load(key) * 0, self.recipe, self.weights), g, x, name, linear
        )

    monkeypatch.setattr(WhisperLowering, "_linear", zeroed)
    capsys.readouterr()
    assert compile_command(output, *arguments, source="whisper-tiny.en") == 1
    err = capsys.readouterr().err
    assert "clips that lost" in err and "word error rate" in err.splitlines()[-1]
    assert output.read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["one.jsonl", "x.svb"]
