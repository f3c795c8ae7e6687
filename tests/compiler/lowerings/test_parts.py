import pytest

from sottovoce.errors import InputError
from sottovoce_compiler.lowerings.parts import by_part, in_words


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("int8", ("int8", "int8", "int8")),
        ("encoder=int8,decoder=int4,head=fp16", ("int8", "int4", "fp16")),
        ("head fp16, encoder int8, decoder int4", ("int8", "int4", "fp16")),
    ],
)
def test_a_precision_is_one_word_or_one_for_each_part(text: str, parts: tuple[str, ...]) -> None:
    assert tuple(by_part(text).values()) == parts


def test_what_is_written_is_read_again_and_equal_parts_are_one_word() -> None:
    mixed = {"encoder": "int8", "decoder": "int4", "head": "int8"}
    assert in_words(mixed) == "encoder int8, decoder int4, head int8"
    assert by_part(in_words(mixed)) == mixed
    assert in_words(by_part("encoder=int8,decoder=int8,head=int8")) == "int8"


@pytest.mark.parametrize(
    "text", ["encoder=int8", "encoder=int8,decoder=int8,ears=int8", "encoder=int8," * 3, "a b c", ""]
)
def test_a_part_that_is_missing_unknown_or_twice_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(InputError, match="encoder=int8,decoder=int8,head=int8"):
        by_part(text)
