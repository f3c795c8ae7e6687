"""What chat.py asks: prompts of a wanted length, tasks, schemas. Knows text; knows neither models nor clocks."""

from collections.abc import Callable, Iterator, Mapping
from itertools import count, islice
from typing import Any

Message = Mapping[str, Any]

_WHO = ("The ferryman", "A clerk", "My neighbour", "The baker's daughter", "Somebody", "The engineer", "An old sailor")
_DID = ("mended", "painted", "carried away", "asked about", "hid", "measured", "sold", "drew", "counted", "forgot")
_WHAT = ("the blue lamp", "two crates of pears", "a broken clock", "the harbour bell", "every letter", "a map")
_WHERE = ("behind the mill", "in the upper town", "by the third bridge", "under the stairs", "on the last train")
_WHEN = ("before breakfast", "after the flood", "while it snowed", "on the first of May", "without a word")

_STRIDE = 6151  # shares no factor with the 10,500 sentences there are, so all come before any comes again

STORY = "Continue this story in great detail, with at least ten more paragraphs."
COPY = "Write this program again and rename nothing but `width`, which becomes `breadth`."
PROGRAM = '''\
def area(width, height):
    """The area of a rectangle in square metres."""
    if width < 0 or height < 0:
        raise ValueError("a rectangle has no negative sides")
    return width * height


def perimeter(width, height):
    """The length around a rectangle in metres."""
    if width < 0 or height < 0:
        raise ValueError("a rectangle has no negative sides")
    return 2 * (width + height)
'''
NORMAL = "Explain in great detail, in at least ten paragraphs, how a bicycle stays upright and how it is steered."

NUMBERS: Mapping[str, Any] = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": 999},
    "minItems": 40,
    "maxItems": 40,
}
"""Hardly a token of it is certain beforehand: every one costs a mask."""

RECORDS: Mapping[str, Any] = {
    "type": "array",
    "minItems": 8,
    "maxItems": 8,
    "items": {
        "type": "object",
        "properties": {
            "town": {"type": "string", "minLength": 3, "maxLength": 12},
            "people": {"type": "integer", "minimum": 100, "maximum": 99999},
            "kind": {"enum": ["harbour", "market", "spa"]},
        },
        "required": ["town", "people", "kind"],
        "additionalProperties": False,
    },
}
"""As people ask for: half of the tokens are names and punctuation, about which there is no choice."""

SCHEMAS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "numbers": ("Give me a list of forty different whole numbers below one thousand.", NUMBERS),
    "records": ("Give me a list of eight towns by the sea, with how many people live there.", RECORDS),
}


def passage(sentences: int) -> str:
    """So many sentences, the same ones every time; no two of the first ten thousand are alike."""
    return " ".join(islice(_sentences(), sentences))


def story(tokens: int, counted: Callable[[str], int]) -> str:
    """The passage of about so many tokens, not more where that is possible; `counted` says how many a text has."""
    low, high = 1, 2
    while counted(passage(high)) <= tokens:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if counted(passage(middle)) <= tokens else (low, middle)
    return passage(low)


def asked(request: str, text: str = "") -> tuple[Message, ...]:
    """One user's message: the request, and the text that it is about."""
    return ({"role": "user", "content": f"{request}\n\n{text}" if text else request},)


def response_format(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema as the OpenAI API takes it."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema)}}


def _sentences() -> Iterator[str]:
    parts = (_WHO, _DID, _WHAT, _WHERE, _WHEN)
    for step in count(1):
        index, words = step * _STRIDE, []
        for choices in parts:
            index, at = divmod(index, len(choices))
            words.append(choices[at])
        yield " ".join(words) + "."
