"""What a bundle says of tokens, read from a checkpoint's files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers

from sottovoce_compiler.families import UnsupportedModelError, language_model
from sottovoce_compiler.sources import Checkpoint, resolve
from sottovoce_compiler.tokens import chat_tokens

from .chat_compile_case import chat_folder
from .lowerings.gguf.tokenizer_case import byte_level


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve(str(chat_folder(tmp_path_factory.mktemp("chat") / "nano")))


def found(checkpoint: Checkpoint, **changes: Any) -> dict[str, Any]:
    changed = replace(checkpoint, **changes)
    return chat_tokens(changed, language_model(changed).spec).to_json()


def test_special_tokens_are_those_of_the_files(checkpoint: Checkpoint) -> None:
    assert found(checkpoint) == {
        **{"bos": 1, "adds_bos": False, "ends": [2], "composes": False},
        "special_tokens": {"bos_token": "<s>", "eos_token": "</s>"},
        "sampling": {"temperature": 0.7, "top_k": 0},
    }


def test_several_tokens_end_an_answer(checkpoint: Checkpoint) -> None:
    assert found(checkpoint, generation_config={"eos_token_id": [2, 0, 2]})["ends"] == [2, 0]
    config = {**checkpoint.config, "eos_token_id": 0}
    assert found(checkpoint, config=config)["ends"] == [2, 0]


def test_a_model_that_nothing_ends_is_refused(checkpoint: Checkpoint) -> None:
    config = {**checkpoint.config, "eos_token_id": None}
    with pytest.raises(UnsupportedModelError, match="no token that ends text"):
        found(checkpoint, config=config, tokenizer_config={"bos_token": "<s>"})


def test_text_begins_with_a_token_where_the_tokenizer_says_so(checkpoint: Checkpoint) -> None:
    config = {**checkpoint.tokenizer_config, "add_bos_token": True}
    assert found(checkpoint, tokenizer_config=config)["adds_bos"] is True


@pytest.mark.parametrize(
    ("generation", "sampling"),
    [
        ({"do_sample": False, "temperature": 0.7}, {}),
        ({"temperature": 0.6, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1}, None),
        ({"temperature": True, "top_k": "50", "top_p": None, "max_length": 20}, {}),
        ({}, {}),
    ],
)
def test_sampling_is_what_the_maker_recommends(
    generation: dict[str, Any], sampling: dict[str, Any] | None, checkpoint: Checkpoint
) -> None:
    expected = generation if sampling is None else sampling
    assert found(checkpoint, generation_config=generation)["sampling"] == expected


def test_a_tokenizer_that_composes_characters_is_said_to(tmp_path: Path) -> None:
    checkpoint = resolve(str(chat_folder(tmp_path / "nano", vocab_size=1024)))
    for normalizer, composes in ((normalizers.NFC(), True), (None, False)):
        tokenizer = byte_level("qwen2")
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        config = {"eos_token": "<|im_end|>"}
        made = found(checkpoint, tokenizer_file=tmp_path / "tokenizer.json", tokenizer_config=config)
        assert made["composes"] is composes
