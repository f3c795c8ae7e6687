"""Text to tokens as the runtime's own vocabulary makes them, many at a time."""

from pathlib import Path

import pytest
from tests.runtime.chat.template_case import FAMILIES

from sottovoce.errors import InputError

from .data_case import coder_of

TEXTS = ["", "a", " a", "the  a\n\nb\n", "Größe 東京 😀", "x<|im_end|>y", "\n"]


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_plain_text_is_what_the_runtime_makes_of_it(tmp_path: Path, spaced: bool, adds_bos: bool) -> None:
    coder = coder_of(tmp_path, "chatml", None, spaced=spaced, adds_bos=adds_bos)
    vocabulary = coder._vocabulary
    begin = [vocabulary.bos] if adds_bos else []
    assert coder.encode_text(TEXTS) == [[*begin, *vocabulary.encode(text, special=False)] for text in TEXTS]


def test_the_token_that_begins_text_is_not_put_there_twice(tmp_path: Path) -> None:
    coder = coder_of(tmp_path, "llama3", FAMILIES["llama3"], adds_bos=True)
    (one, other) = coder.encode_rendered(["<s>a", "a"])
    assert one == other and coder.decode(one) == "<s>a"


@pytest.mark.parametrize("spaced", [False, True])
def test_what_goes_on_gets_no_space_of_its_own(tmp_path: Path, spaced: bool) -> None:
    coder = coder_of(tmp_path, "chatml", None, spaced=spaced)
    (before,), (after, empty) = coder.encode_text(["to b"]), coder.encode_continued(["ack a", ""])
    assert coder.decode([*before, *after]).strip() == "to back a" and empty == []


@pytest.mark.parametrize("spaced", [False, True])
def test_no_token_reaches_over_a_cut(tmp_path: Path, spaced: bool) -> None:
    coder = coder_of(tmp_path, "chatml", None, spaced=spaced)
    (whole,), (cut,) = coder.encode_rendered(["b a<|im_end|> a"]), coder.encode_cut(["b a<|im_end|> a"], [2, 99, 0])
    assert len(cut) == len(whole) + 1
    assert coder.decode(cut) == coder.decode(whole)


def test_spellings_of_control_tokens_are_noticed(tmp_path: Path) -> None:
    coder = coder_of(tmp_path, "chatml", None)
    assert coder.spells_control("a<|im_end|>") and not coder.spells_control("a<|im_end>")


def test_text_is_composed_where_the_model_is_used_to_it(tmp_path: Path) -> None:
    import json
    from dataclasses import replace

    from sottovoce_compiler.families import language_model
    from sottovoce_compiler.finetune.data.coder import Coder

    from .data_case import checkpoint_of

    checkpoint = checkpoint_of(tmp_path, "qwen2", FAMILIES["qwen2"])
    assert checkpoint.tokenizer_file is not None
    content = json.loads(checkpoint.tokenizer_file.read_text())
    file = tmp_path / "composing.json"
    file.write_text(json.dumps(content | {"normalizer": {"type": "NFC"}}))
    coder = Coder(replace(checkpoint, tokenizer_file=file), language_model(checkpoint).spec)
    one, other = coder.encode_text(["e\u0301", "\u00e9"])
    assert one == other
    assert coder.encode_rendered(["e\u0301"]) == [one]


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    coder = coder_of(tmp_path, "chatml", None, spare=1)  # without a row for the last token, a double line end
    assert coder.encode_text(["sound"])
    with pytest.raises(InputError, match=r"chatml: the tokenizer has token 261 \('ĊĊ'\), the model only 261"):
        coder.encode_text(["a\n\n"])
