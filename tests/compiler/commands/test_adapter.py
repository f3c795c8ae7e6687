"""The commands that take an adapter, as a user meets them."""

import json
from pathlib import Path

import pytest

from sottovoce import Chat
from sottovoce.bundle import open_bundle
from sottovoce.cli import main
from sottovoce.errors import InputError
from sottovoce.gguf import read_gguf
from sottovoce_compiler.lowerings.gguf.writer import write_gguf

from ..causal_case import config_of, random_model, save
from ..lora_case import change_config, save_lora


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model's folder, an adapter of it in "lora" beside it."""
    config = config_of("llama")
    config.max_position_embeddings = 1024  # what is measured on fills a window
    model = random_model(config)
    save_lora(model, tmp_path / "lora")
    return save(model, tmp_path / "source")


def adapter_command(source: Path, *more: str, output: str = "lora.gguf") -> int:
    return main(["adapter", str(source), str(source.parent / "lora"), "-o", str(source.parent / output), *more])


def test_the_file_is_said_in_one_line_and_as_one_json_object(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapter_command(source) == 0
    out, err = capsys.readouterr()
    assert out.endswith("lora.gguf: 0.0 MB, 28 matrices of source, rank 4\n") and "trained on" not in err
    change_config(source.parent / "lora", base_model_name_or_path="Org/Other")
    assert adapter_command(source, "--json", "--precision", "fp16") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["adapter"] == str(source.parent / "lora.gguf")
    assert found["bytes"] == (source.parent / "lora.gguf").stat().st_size
    assert (found["base"], found["matrices"], found["ranks"]) == ("source", 28, [4])
    assert "trained on 'Org/Other'" in found["notes"][0] and found["notes"][0] in err
    assert {tensor.kind for tensor in read_gguf(source.parent / "lora.gguf").tensors.values()} == {"F16"}


def test_an_adapter_is_replaced_and_nothing_else_is(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapter_command(source) == 0
    first = (source.parent / "lora.gguf").read_bytes()
    assert adapter_command(source) == 0
    assert (source.parent / "lora.gguf").read_bytes() == first
    from sottovoce_compiler.families import language_model
    from sottovoce_compiler.sources import resolve

    checkpoint = resolve(str(source))
    model = source.parent / "model.gguf"
    write_gguf(language_model(checkpoint), checkpoint, model)
    before = model.read_bytes()
    assert adapter_command(source, output="model.gguf") == 2
    assert model.read_bytes() == before
    for output, said in (
        ("model.gguf", "is no adapter"),
        ("x.bin", "does not end in .gguf"),
        ("no/x.gguf", "no folder"),
    ):
        assert adapter_command(source, output=output) == 2
        assert said in capsys.readouterr().err


def test_what_cannot_be_made_is_exit_2_in_one_line_and_leaves_nothing(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(source.parent.iterdir())
    other = save(random_model(config_of("llama, wide heads")), source.parent / "other")
    save_lora(random_model(config_of("llama")), source.parent / "zero", b=0.0)
    for model, lora, said in (
        (other, "lora", "made for another model"),
        (source, "zero", "it was not trained"),
        (source, "source", "there is no adapter_config.json"),
        (source.parent / "lora", "lora", "is a LoRA adapter; give its base model"),
    ):
        out = source.parent / "x.gguf"
        assert main(["adapter", str(model), str(source.parent / lora), "-o", str(out)]) == 2
        err = capsys.readouterr().err
        assert said in err and "Traceback" not in err
        assert not out.exists()
    assert len(list(source.parent.iterdir())) == len(before) + 2


def compile_command(source: Path, name: str, *more: str) -> Path:
    """The bundle in float32, of a source that is measured on one line."""
    text = source.parent / "text.txt"
    text.write_text("It was the best of times, it was the worst of times.")
    bundle = source.parent / name
    common = ["--target", "linux-x86-64", "--precision", "fp32", "--eval", str(text), "--max-kl", "1e-3"]
    assert main(["compile", str(source), "-o", str(bundle), *common, *more]) == 0
    return bundle


def test_a_chat_says_with_the_adapter_attached_what_the_bundle_says_that_was_compiled_with_it(source: Path) -> None:
    def text(chat: Chat) -> str:
        return "".join(delta.text for delta in chat.complete("Hello there", temperature=0, max_tokens=20))

    assert adapter_command(source) == 0
    with Chat(compile_command(source, "x.svb"), threads=1) as chat:
        plain = text(chat)
        chat.attach_adapter(source.parent / "lora.gguf")
        adapted = text(chat)
        chat.detach_adapters()
        assert text(chat) == plain != adapted
    merged = compile_command(source, "merged.svb", "--adapter", str(source.parent / "lora"))
    with Chat(merged, threads=1) as chat:
        assert text(chat) == adapted
        with pytest.raises(InputError, match="made for another model"):
            chat.attach_adapter(source.parent / "lora.gguf")
    manifest = open_bundle(merged).manifest
    assert (manifest.name, manifest.source.spec) == ("source+lora", "source+lora")
    files = {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "model.safetensors"}
    assert files <= set(manifest.source.sha256)
    assert str(source.parent) not in str(manifest.source)


def test_compile_refuses_an_adapter_of_another_model_and_leaves_nothing(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save(random_model(config_of("llama, wide heads")), source.parent / "other")
    bundle = source.parent / "x.svb"
    command = ["compile", str(other), "--target", "linux-x86-64", "-o", str(bundle), "--adapter"]
    assert main([*command, str(source.parent / "lora")]) == 2
    assert "made for another model" in capsys.readouterr().err and not bundle.exists()
    assert main([*command, str(source.parent / "nowhere")]) == 2
    assert "no adapter in" in capsys.readouterr().err
