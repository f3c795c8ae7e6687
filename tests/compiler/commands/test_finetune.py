"""The command as a user meets it: one line for data that is wrong, an adapter that does something, and a run that goes
on where it was stopped. A tiny random model learns its arithmetic."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
import torch

from sottovoce.cli import main
from sottovoce_compiler.finetune import pipeline
from sottovoce_compiler.finetune.settings import options
from sottovoce_compiler.finetune.trainer.checkpoint import FILE as CHECKPOINT
from sottovoce_compiler.finetune.trainer.log import read_log
from sottovoce_compiler.finetune.trainer.stop import Stop
from sottovoce_compiler.finetune.trainer.watch import StepReport, Watchers
from sottovoce_compiler.sources.peft import open_adapter

from ..causal_case import config_of, random_model, save
from ..chat_compile_case import chat_folder
from ..whisper_case import checkpoint_of, sweep
from ..whisper_case import random_model as random_whisper

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1}
# (rows, columns) of a layer's seven.
MATRICES = ((32, 32), (16, 32), (16, 32), (32, 32), (48, 32), (48, 32), (32, 48))
QUICK = ("--dtype", "float32", "--batch-tokens", "128", "--learning-rate", "0.02", "--rank", "4")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers; read-only."""
    return chat_folder(tmp_path_factory.mktemp("finetune") / "source", **SMALL)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Lines of which only the answer is learned; the same answer, so that little training is enough."""
    return lines(tmp_path / "data.jsonl", [{"text": f"Q: say {word}\nA: yes"} for word in words(30)])


def words(count: int) -> list[str]:
    return [f"{chr(97 + n % 26)}{n}" for n in range(count)]


def lines(path: Path, values: list[Any]) -> Path:
    path.write_text("".join((value if isinstance(value, str) else json.dumps(value)) + "\n" for value in values))
    return path


def command(model: Path, data: Path | None, output: Path, *more: str) -> int:
    given = [] if data is None else ["--data", str(data)]
    return main(["finetune", str(model), *given, "-o", str(output), *QUICK, *more])


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said last on stderr."""
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = load_file(folder / "adapter_model.safetensors")
    return found


MARKED = ("--answer-marker", r"\nA: ")


def test_an_adapter_comes_out_that_learned_its_lines_and_says_so(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tmp_path / "lora"
    assert command(model, data, adapter, *MARKED, "--epochs", "6", "--measure", "exact_match") == 0
    out, err = capsys.readouterr()
    assert re.search(r"exact match +0\.0% +100\.0%", out), out
    assert f"next: sottovoce compile {model} --adapter {adapter}" in out
    assert "sottovoce: step 1 of" in err and "tokens/s" in err and "before training" in err
    assert sorted(item.name for item in adapter.iterdir()) == [
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "curve.png", "log.jsonl", "settings.json")
    ]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["data.jsonl", "lora"], "the training folder is gone"
    assert len(open_adapter(adapter).pairs) == 14
    events = [line["event"] for line in read_log(adapter)]
    assert events.count("evaluation") == 7 and events.count("step") > 6
    assert "exact match after" in (adapter / "README.md").read_text()


def test_json_is_one_object_with_the_keys_of_the_contract(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(model, data, tmp_path / "lora", *MARKED, "--steps", "3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["adapter"], found["steps"]) == (str(tmp_path / "lora"), 3)
    assert found["loss"] == found["metrics"]["after"]["loss"] < found["metrics"]["before"]["loss"]
    assert found["trainable"] == sum(one.numel() for one in weights(tmp_path / "lora").values())
    assert found["settings"]["steps"] == 3 and found["data"]["kind"] == "text"
    assert found["merged_difference"] < 1e-4 and found["warnings"] == []


def test_the_settings_that_were_written_give_the_same_adapter_again(model: Path, data: Path, tmp_path: Path) -> None:
    assert command(model, data, tmp_path / "one", *MARKED, "--steps", "3", "--method", "dora") == 0
    again = ["finetune", str(model), "-o", str(tmp_path / "two"), "--config", str(tmp_path / "one" / "settings.json")]
    assert main(again) == 0
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_config_file_gives_options_and_the_command_line_stands_over_it(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "my.toml"
    config.write_text('data = "data.jsonl"\nsteps = 2\nrank = 2\nanswer_marker = "\\nA: "\ntargets = "q,v"\n')
    assert command(model, None, tmp_path / "lora", "--config", str(config), "--json") == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert (settings["steps"], settings["rank"]) == (2, 4)
    assert {pair.module.rpartition(".")[2] for pair in open_adapter(tmp_path / "lora").pairs} == {"q_proj", "v_proj"}
    config.write_text("epoch = 2\n")
    assert command(model, data, tmp_path / "other", "--config", str(config)) == 2
    assert "my.toml: no option 'epoch'; did you mean epochs?" in only_line(capsys)


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at the end of a step."""
    plain = Watchers.step
    stops: list[Stop] = []

    class Noted(Stop):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            stops.append(self)

    def told(self: Watchers, report: StepReport) -> None:
        plain(self, report)
        if report.step == step:
            stops[-1].ask()

    monkeypatch.setattr(pipeline, "Stop", Noted)
    monkeypatch.setattr(Watchers, "step", told)


def test_a_run_that_was_stopped_says_how_to_go_on_and_then_gives_the_same_bytes(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options_ = (*MARKED, "--epochs", "3", "--dropout", "0.1", "--schedule", "linear")
    assert command(model, data, tmp_path / "whole", *options_) == 0
    with monkeypatch.context() as changed:
        stop_after(4, changed)
        assert command(model, data, tmp_path / "lora", *options_) == 130
    err = capsys.readouterr().err
    assert "stopped after step 4 of" in err and "error" not in err
    assert f"\n  sottovoce finetune {model} -o {tmp_path / 'lora'} --resume\n" in err
    assert not (tmp_path / "lora").exists() and (tmp_path / "lora.training" / CHECKPOINT).is_file()
    assert command(model, data, tmp_path / "lora", *options_) == 2
    assert "holds unfinished training; go on with --resume" in only_line(capsys)
    assert main(["finetune", str(model), "-o", str(tmp_path / "lora"), "--resume"]) == 0
    name = "adapter_model.safetensors"
    assert (tmp_path / "lora" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    one, two = ([line["loss"] for line in read_log(tmp_path / which)] for which in ("lora", "whole"))
    assert one == two
    assert main(["finetune", str(model), "-o", str(tmp_path / "lora"), "--resume"]) == 2
    assert "nothing to resume" in only_line(capsys)


def test_a_run_goes_on_with_its_own_data_alone(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as changed:
        stop_after(2, changed)
        assert command(model, data, tmp_path / "lora", *MARKED) == 130
    before = (tmp_path / "lora.training" / CHECKPOINT).read_bytes()
    other = lines(tmp_path / "other.jsonl", [{"text": f"Q: {word}\nA: no"} for word in words(30)])
    for changed, said in (
        (("--data", str(other)), "the checkpoint was made with data ="),
        (("--rank", "8"), "the checkpoint was made with rank = 4, now it is 8"),
    ):
        assert main(["finetune", str(model), "-o", str(tmp_path / "lora"), "--resume", *changed]) == 2
        assert said in only_line(capsys)
    assert (tmp_path / "lora.training" / CHECKPOINT).read_bytes() == before


def test_training_goes_on_from_an_adapter(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(model, data, tmp_path / "one", *MARKED, "--steps", "4", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    more = ("--from-adapter", str(tmp_path / "one"), "--steps", "2", "--json")
    assert main(["finetune", str(model), "--data", str(data), "-o", str(tmp_path / "two"), *MARKED, *more,
                 "--dtype", "float32", "--batch-tokens", "128"]) == 0  # fmt: skip
    second = json.loads(capsys.readouterr().out)
    assert second["metrics"]["before"]["loss"] == pytest.approx(first["metrics"]["after"]["loss"], rel=1e-4)
    assert second["settings"]["rank"] == 4
    assert command(model, data, tmp_path / "three", *MARKED, "--rank", "8", *more) == 2
    assert "rank = 8, but" in only_line(capsys)


def test_an_adapter_of_another_model_is_refused_before_anything_is_trained(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = chat_folder(tmp_path / "other", **{**SMALL, "hidden_size": 64})
    assert command(model, data, tmp_path / "one", *MARKED, "--steps", "2") == 0
    capsys.readouterr()
    assert command(other, data, tmp_path / "two", *MARKED, "--from-adapter", str(tmp_path / "one")) == 2
    assert "made for another model" in only_line(capsys)
    assert not (tmp_path / "two").exists() and not (tmp_path / "two.training").exists()


BAD_LINES: list[tuple[list[Any], tuple[str, ...], str]] = [
    (['{"text": "Q\\nA: x"'], MARKED, "line 1: is not JSON"),
    ([{"text": "Q\nA: x"}, {"txt": "x"}], MARKED, "line 2: its keys ('txt') are of no kind"),
    ([{"text": "Q\nA: x"}, {"text": "Q\nA: "}], MARKED, "line 2: has nothing after"),
    ([{"text": "Q\nA: x"}, {"text": "no answer"}], MARKED, "line 2: has no '\\nA: '"),
    ([{"instruction": "x", "output": ""}], (), "line 1: output: is empty"),
    ([{"messages": [{"role": "user", "content": "x"}]}], (), "line 1: no message is the assistant's"),
    ([{"text": "long " * 50}], ("--context", "16"), "line 1: is 251 tokens, at most 16 fit"),
    ([{"audio": "gone.wav", "text": "x"}], (), "line 1: audio: 'gone.wav' is not there"),
    ([], (), "has no lines of data"),
]


@pytest.mark.parametrize(("content", "more", "said"), BAD_LINES)
def test_data_that_is_not_what_it_says_is_named_by_its_line(
    content: list[Any], more: tuple[str, ...], said: str, model: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    data = lines(tmp_path / "data.jsonl", content)
    assert command(model, data, tmp_path / "lora", *more) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    assert [item.name for item in tmp_path.iterdir()] == ["data.jsonl"]


def test_longer_examples_are_cut_or_dropped_where_asked_and_counted(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = lines(tmp_path / "data.jsonl", [{"text": f"{n} words " * (2 if n else 40)} for n in range(12)])
    for how, said in (("cut", "examples cut to 64 tokens: 1"), ("drop", "longer than 64 tokens: 1")):
        assert command(model, data, tmp_path / how, "--context", "64", "--too-long", how, "--steps", "1") == 0
        assert said in capsys.readouterr().err


def test_data_of_which_nothing_can_be_held_back_is_trained_on_unmeasured(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All lines are one: on either side of a split they would be what was learned."""
    data = lines(tmp_path / "data.jsonl", [{"text": "the same"}] * 5)
    assert command(model, data, tmp_path / "lora", "--steps", "2", "--json") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["metrics"]["after"] is None and found["loss"] > 0
    assert "warning: nothing was measured" in err
    assert command(model, data, tmp_path / "other", "--patience", "2") == 2
    assert "patience needs something to measure on" in only_line(capsys)


def test_recordings_for_a_language_model_and_text_for_a_speech_model_are_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    data = lines(tmp_path / "data.jsonl", [{"audio": "a.wav", "text": "x"}])
    assert command(model, data, tmp_path / "lora") == 2
    assert "line 1 is speech data; this model takes chat or" in only_line(capsys)
    with whisper():
        assert command(Path("random"), lines(data, [{"text": "x"}]), tmp_path / "lora") == 2
    assert "line 1 is text data; this model takes speech" in only_line(capsys)


def whisper() -> Any:
    """A random Whisper in place of whatever source is named."""
    return patch.object(pipeline, "resolve", return_value=checkpoint_of(random_whisper()))


def test_speech_is_trained_and_measured_by_the_same_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for at in range(8):
        soundfile.write(tmp_path / f"{at}.wav", sweep(0.3 + at / 10, at), 16_000)
    said = [{"audio": f"{at}.wav", "text": f"text {at}", "language": "en"} for at in range(8)]
    more = ("--steps", "3", "--measure", "loss", "--eval-fraction", "0.25", "--json")
    with whisper():
        assert command(Path("random"), lines(tmp_path / "data.jsonl", said), tmp_path / "lora", *more) == 0
        found = json.loads(capsys.readouterr().out)
        assert command(Path("random"), tmp_path / "data.jsonl", tmp_path / "none", "--explain") == 0
    assert found["metrics"]["after"]["loss"] < found["metrics"]["before"]["loss"] and found["data"]["kind"] == "speech"
    modules = {pair.module.rpartition(".")[2] for pair in open_adapter(tmp_path / "lora").pairs}
    assert modules == {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}
    assert "gelu_bias" in capsys.readouterr().out


def test_a_vocabulary_that_does_not_fit_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = save(random_model(config_of_size(100)), tmp_path / "small")
    assert command(small, data, tmp_path / "lora", *MARKED) == 2
    assert re.search(r"token.* 100", only_line(capsys))


def config_of_size(vocab: int) -> Any:
    config = config_of("llama")
    config.vocab_size = vocab
    return config


def test_a_loss_that_is_no_number_is_exit_1_and_names_the_lines(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for item in model.iterdir():
        (broken / item.name).write_bytes(item.read_bytes())
    from safetensors.torch import load_file, save_file

    tensors = load_file(broken / "model.safetensors")
    tensors["model.embed_tokens.weight"][:] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    assert command(broken, data, tmp_path / "lora", *MARKED) == 1
    assert re.search(r"step 1: the loss is nan in data\.jsonl, lines \d+, ", only_line(capsys))
    assert not (tmp_path / "lora").exists()


def test_a_full_disk_leaves_no_half_adapter_and_the_run_can_go_on(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as changed:
        changed.setattr("safetensors.torch.save_file", full)
        assert command(model, data, tmp_path / "lora", *MARKED, "--steps", "3") == 1
    assert "lora was not written: No space left on device; nothing is left of it" in only_line(capsys)
    assert not (tmp_path / "lora").exists() and (tmp_path / "lora.training" / CHECKPOINT).is_file()
    assert main(["finetune", str(model), "-o", str(tmp_path / "lora"), "--resume"]) == 0
    assert (tmp_path / "lora" / "adapter_model.safetensors").is_file()


def test_training_that_changes_nothing_is_refused(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.optim.AdamW.step", lambda *_, **__: None)
    assert command(model, data, tmp_path / "lora", *MARKED, "--steps", "2") == 1
    assert "the adapter changes nothing" in only_line(capsys)
    assert not (tmp_path / "lora").exists()


def test_training_that_makes_it_no_better_is_warned_of(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = lines(tmp_path / "data.jsonl", [{"text": f"Q: {word}\nA: yes"} for word in words(20)])
    held = lines(tmp_path / "held.jsonl", [{"text": f"Q: {word}\nA: {word * 9}"} for word in words(5)])
    more = ("--eval-data", str(held), "--measure", "exact_match", "--epochs", "2")
    assert command(model, data, tmp_path / "lora", *MARKED, *more) == 0
    said = "warning: it is not better on the evaluation split: exact match 0.0% before, exact match 0.0% after"
    assert said in capsys.readouterr().err


def test_nothing_but_an_adapter_is_replaced(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "mine"
    kept.mkdir()
    (kept / "thesis.txt").write_text("years of work")
    for output, said in ((kept, "no adapter's"), (data, "not a folder"), (tmp_path / "no" / "x", "create it first")):
        assert command(model, data, output, *MARKED) == 2
        assert said in only_line(capsys)
    assert (kept / "thesis.txt").read_text() == "years of work"
    assert command(model, data, tmp_path / "lora", *MARKED, "--steps", "1") == 0
    first = weights(tmp_path / "lora")
    assert command(model, data, tmp_path / "lora", *MARKED, "--steps", "2") == 0
    second = weights(tmp_path / "lora")
    assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--rank", "0"), "rank = 0; at least 1 and up to 1024"),
        (("--learning-rate", "2"), "learning_rate = 2.0; more than 0 and up to 1"),
        (("--measure", "wer"), "does not go with text"),
        (("--eval-fraction", "0", "--patience", "2"), "needs something to measure on"),
        (("--dtype", "float16"), "needs a GPU"),
        (("--targets", "q,knee"), "no target module 'knee'"),
        (("--method", "lara"), "invalid choice: 'lara'"),
        (("--day", "tomorrow"), "day = 'tomorrow'"),
        (("--config", "none.toml"), "none.toml: No such file"),
    ],
)
def test_an_option_that_cannot_be_is_exit_2_in_one_line(
    more: tuple[str, ...], said: str, model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(model, data, tmp_path / "lora", *MARKED, *more) == 2
    assert said in only_line(capsys)
    assert not (tmp_path / "lora").exists()


def test_without_data_or_a_model_it_says_what_to_give(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(model, None, tmp_path / "lora") == 2
    assert "give --data FILE.jsonl" in only_line(capsys)
    assert command(model, tmp_path / "none.jsonl", tmp_path / "lora") == 2
    assert "cannot read" in only_line(capsys)
    assert command(Path("whisper-bass"), data, tmp_path / "lora") == 2
    assert "whisper-bass" in only_line(capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_one_line(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(model, data, tmp_path / "lora", *MARKED, "--device", "cuda") == 2
    assert "torch finds no GPU here" in only_line(capsys)


def test_explain_says_what_would_be_done_and_trains_nothing(
    model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(model, data, tmp_path / "lora", *MARKED, "--explain") == 0
    out = capsys.readouterr().out
    for said in (
        "30 lines of text data",
        "packing",
        "q_proj",
        "linear_cross_entropy",
        "sdpa: ",
        "tokens/s",
        "GB",
        "lora",
    ):
        assert said in out, said
    assert [item.name for item in tmp_path.iterdir()] == ["data.jsonl"]
    assert command(model, data, tmp_path / "lora", *MARKED, "--explain", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"] > 3 and found["seconds"] > 0
    assert found["trainable"] == 2 * 4 * sum(rows + columns for rows, columns in MATRICES)


def test_the_curve_and_the_log_are_of_the_run(model: Path, data: Path, tmp_path: Path) -> None:
    assert command(model, data, tmp_path / "lora", *MARKED, "--steps", "5", "--eval-every", "2") == 0
    found = list(read_log(tmp_path / "lora"))
    assert [line["step"] for line in found if line["event"] == "step"] == [1, 2, 3, 4, 5]
    assert [line["step"] for line in found if line["event"] == "evaluation"] == [0, 2, 4, 5]
    assert (tmp_path / "lora" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_adapter_is_one_that_peft_loads_and_that_says_what_ours_says(
    model: Path, data: Path, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    from sottovoce_compiler.adapter import with_adapter
    from sottovoce_compiler.families import language_model
    from sottovoce_compiler.sources import resolve

    assert command(model, data, tmp_path / "lora", *MARKED, "--steps", "4") == 0
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "lora").merge_and_unload()
    ours = language_model(with_adapter(resolve(str(model)), open_adapter(tmp_path / "lora")))
    for layer in range(2):
        weight = theirs.model.layers[layer].self_attn.q_proj.weight.detach().numpy()
        np.testing.assert_allclose(ours.load("q", layer), weight, rtol=1e-5, atol=1e-6)


def test_every_option_can_be_given_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in shown for name in options())
