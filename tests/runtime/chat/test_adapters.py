"""Adapters in a chat, with a tiny random model in llama.cpp: whose they are, what they do and what they leave."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from bundle_case import manifest_fields
from chat_bundle_case import make_chat_bundle
from llama_case import needs_llama
from tiny_gguf import CHATML, tiny_gguf, tiny_lora

from sottovoce import Chat
from sottovoce.adapter_pin import is_weight_file
from sottovoce.errors import BundleError, EngineError, InputError
from sottovoce_compiler.pack import write_bundle

pytestmark = needs_llama
MESSAGES = [{"role": "user", "content": "Hello"}]
BASE, OTHER = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def chat(model: Path) -> Iterator[Chat]:
    with Chat(model, threads=1) as chat:
        yield chat


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def lora(folder: Path, model: Path, name: str = "lora.gguf", **more: Any) -> Path:
    return tiny_lora(folder / name, **{"pin": [digest(model)], **more})


def text(chat: Chat) -> str:
    return chat.chat(MESSAGES, temperature=0, max_tokens=12).text


def bundle(path: Path, model: Path, digests: dict[str, str]) -> Path:
    """A chat bundle of the tiny model whose source had files of these digests."""
    return write_bundle(
        path,
        manifest_fields(
            **{"task": "chat", "family": "llama", "name": "tiny", "audio": {}},
            **{"engine": {"name": "llama.cpp", "min_version": "0", "max_version": None, "cpu_features": []}},
            **{"model": {"context": 128}, "generation": {"special_tokens": {}, "sampling": {}}},
            source={"spec": "tiny", "revision": None, "licence": None, "sha256": digests},
        ),
        {"model.gguf": model, "chat_template.jinja": CHATML.encode()},
    )


def test_an_adapter_changes_the_answer_and_detaching_it_brings_the_old_one_back(
    chat: Chat, model: Path, tmp_path: Path
) -> None:
    plain = text(chat)
    for path in (lora(tmp_path, model), str(lora(tmp_path, model))):
        chat.attach_adapter(path)
        changed = text(chat)
        assert changed != plain
        chat.detach_adapters()
        assert text(chat) == plain
    chat.attach_adapter(lora(tmp_path, model), scale=1e-3)
    assert text(chat) != changed


def test_an_adapter_of_another_base_is_refused_and_the_conversation_goes_on(
    chat: Chat, model: Path, tmp_path: Path
) -> None:
    plain, cached = text(chat), chat._ready.prefix.tokens
    for pin in ([OTHER], [digest(model), OTHER]):
        with pytest.raises(
            InputError, match=r"lora\.gguf was made for another model than .*tiny\.gguf: .* sottovoce ad"
        ):
            chat.attach_adapter(lora(tmp_path, model, pin=pin))
    assert chat._ready.prefix.tokens == cached and text(chat) == plain


@pytest.mark.parametrize("pin", [(), ["nonsense"], [BASE.upper()], [BASE] * 1001], ids=["no", "text", "upper", "many"])
def test_an_adapter_that_does_not_say_whose_it_is_is_refused(
    chat: Chat, model: Path, tmp_path: Path, pin: list[str]
) -> None:
    with pytest.raises(InputError, match=r"does not say which model it was made for .*: sottovoce adapter"):
        chat.attach_adapter(lora(tmp_path, model, pin=pin))


def test_a_bundle_knows_its_source_by_all_its_weights_and_by_nothing_else(model: Path, tmp_path: Path) -> None:
    files = {"one.safetensors": BASE, "two.safetensors": OTHER, "config.json": "c" * 64}
    with Chat(bundle(tmp_path / "x.svb", model, files), threads=1) as chat:
        plain = text(chat)
        chat.attach_adapter(lora(tmp_path, model, pin=[OTHER, BASE]))
        assert text(chat) != plain
        for pin in ([BASE], [BASE, OTHER, "c" * 64]):
            with pytest.raises(InputError, match="made for another model than tiny: it names weights"):
                chat.attach_adapter(lora(tmp_path, model, "other.gguf", pin=pin))


def test_a_bundle_with_an_adapter_merged_is_another_base(model: Path, tmp_path: Path) -> None:
    files = {"model.safetensors": BASE, "adapter/adapter_model.safetensors": OTHER}
    with (
        Chat(bundle(tmp_path / "x.svb", model, files), threads=1) as chat,
        pytest.raises(InputError, match="made for another model"),
    ):
        chat.attach_adapter(lora(tmp_path, model, pin=[BASE]))


def test_files_of_weights_are_told_by_their_names() -> None:
    names = ["model.safetensors", "pytorch_model.bin", "x.Q4_1.gguf", "config.json", "x.safetensors.index.json", "x==1"]
    assert [is_weight_file(name) for name in names] == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("more", "scale", "error", "said"),
    [
        ({"spread": 0.0}, 1.0, InputError, "this adapter changes nothing"),
        ({}, 1e-30, InputError, "this adapter changes nothing; .* or its scale is too small"),
        ({"spread": 1e18}, 1e30, EngineError, "the model computes no numbers"),
        ({"arch": "qwen2"}, 1.0, InputError, "made for 'qwen2'"),
        ({"width": 32}, 1.0, InputError, "do not fit"),
        ({}, 0.0, InputError, "scale is 0.0"),
        ({}, float("nan"), InputError, "scale is nan"),
    ],
)
def test_after_a_refusal_the_first_adapter_is_still_attached_and_the_answer_is_the_same(
    chat: Chat, model: Path, tmp_path: Path, more: dict[str, Any], scale: float, error: type[Exception], said: str
) -> None:
    plain = text(chat)
    chat.attach_adapter(lora(tmp_path, model))
    first, identity = text(chat), chat._identity
    bad = lora(tmp_path, model, "bad.gguf", seed=1, **more)
    with pytest.raises(error, match=said):
        chat.attach_adapter(bad, scale)
    assert chat._identity == identity
    assert text(chat) == first
    chat.detach_adapters()
    assert text(chat) == plain


def test_an_interrupt_of_the_probe_leaves_what_was_there(
    chat: Chat, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, path = text(chat), lora(tmp_path, model)
    prefix = type(chat._ready.prefix)
    whole = prefix.evaluate
    for calls in (1, 2):  # before the adapter is attached, and after
        left = [calls]

        def interrupted(self: Any, tokens: Any, *, outputs: int = 1, left: list[int] = left) -> Any:
            left[0] -= 1
            found = whole(self, tokens, outputs=outputs)
            if left[0] == 0:
                raise KeyboardInterrupt
            return found

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(prefix, "evaluate", interrupted)
            chat.attach_adapter(path)
        assert text(chat) == plain


def test_two_adapters_add_up_and_go_together(chat: Chat, model: Path, tmp_path: Path) -> None:
    plain = text(chat)
    chat.attach_adapter(lora(tmp_path, model))
    one = text(chat)
    chat.attach_adapter(lora(tmp_path, model, "second.gguf", seed=1), 0.5)
    assert text(chat) not in (plain, one)
    chat.detach_adapters()
    assert text(chat) == plain


def test_a_session_is_of_the_adapters_it_was_saved_with_and_their_scales(
    chat: Chat, model: Path, tmp_path: Path
) -> None:
    first, second = lora(tmp_path, model), lora(tmp_path, model, "second.gguf", seed=1)
    saved = tmp_path / "talk"
    chat.attach_adapter(first)
    answer = text(chat)
    chat.save_session(saved, MESSAGES)
    for attach in ([], [(second, 1.0)], [(first, 1.0000001)], [(first, 1.0), (second, 1.0)]):
        chat.detach_adapters()
        for path, scale in attach:
            chat.attach_adapter(path, scale)
        with pytest.raises(InputError, match="saved with another model or adapter"):
            chat.load_session(saved)
    chat.detach_adapters()
    chat.attach_adapter(first)
    assert chat.load_session(saved) == MESSAGES
    assert chat._ready.prefix.tokens
    assert text(chat) == answer


def test_a_closed_chat_forgets_its_adapters(chat: Chat, model: Path, tmp_path: Path) -> None:
    plain = text(chat)
    identity = chat._identity
    chat.attach_adapter(lora(tmp_path, model))
    chat.close()
    assert (text(chat), chat._identity) == (plain, identity)


def test_a_model_that_begins_with_a_token_is_probed_with_it(tmp_path: Path) -> None:
    begins = tiny_gguf(tmp_path / "bos.gguf", adds_bos=True)
    with Chat(begins, threads=1) as chat:
        seen: list[int] = []
        chat.load()
        prefix = chat._ready.prefix
        whole = prefix.evaluate
        prefix.evaluate = lambda tokens, **more: (seen.append(tokens[0]), whole(tokens, **more))[1]  # type: ignore[method-assign]
        chat.attach_adapter(lora(tmp_path, begins))
        assert set(seen) == {chat._ready.engine.vocabulary.bos}


def test_a_context_smaller_than_the_probe_is_enough(model: Path, tmp_path: Path) -> None:
    with Chat(model, threads=1, context=3) as chat:
        chat.attach_adapter(lora(tmp_path, model))
        with pytest.raises(InputError, match="changes nothing"):
            chat.attach_adapter(lora(tmp_path, model, "none.gguf", spread=0.0))


def test_embeddings_follow_the_adapters(tmp_path: Path) -> None:
    pooled = tiny_gguf(tmp_path / "pooled.gguf", pooling=gguf.PoolingType.MEAN)
    with Chat(pooled, threads=1) as chat:
        plain = chat.embed("Hello there")
        chat.attach_adapter(lora(tmp_path, pooled))
        changed = chat.embed("Hello there")
        assert np.abs(changed - plain).max() > 1e-3
        chat.detach_adapters()
        np.testing.assert_array_equal(chat.embed("Hello there"), plain)
    with Chat(pooled, threads=1) as chat:  # the other way round: the adapter before the first embedding
        chat.attach_adapter(lora(tmp_path, pooled))
        np.testing.assert_array_equal(chat.embed("Hello there"), changed)


def test_a_folder_and_a_damaged_file_are_said_to_be_that(chat: Chat, model: Path, tmp_path: Path) -> None:
    (tmp_path / "peft").mkdir()
    with pytest.raises(InputError, match=r"peft is a folder; make a file of it with: sottovoce adapter SOURCE"):
        chat.attach_adapter(tmp_path / "peft")
    whole = lora(tmp_path, model).read_bytes()
    for size in (0, 3, 100, len(whole) // 2, len(whole) - 40):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        with pytest.raises((BundleError, InputError), match=r"cut\.gguf"):
            chat.attach_adapter(tmp_path / "cut.gguf")
    with pytest.raises(BundleError, match="nowhere"):
        chat.attach_adapter(tmp_path / "nowhere.gguf")
    assert text(chat)


def test_a_bundle_for_onnxruntime_says_that_it_takes_none(model: Path, tmp_path: Path) -> None:
    path = make_chat_bundle(tmp_path / "x.svb")
    with Chat(path, threads=1) as chat:
        with pytest.raises(InputError, match="a bundle for onnxruntime takes no adapter; compile with --adapter"):
            chat.attach_adapter(lora(tmp_path, model, pin=["0" * 64]))
        assert chat._identity == chat._ready.identity
