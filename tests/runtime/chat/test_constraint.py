import json
import sys
from typing import Any

import jsonschema
import numpy as np
import pytest
from tests.runtime.chat.bpe_vocabulary_case import vocabulary
from tests.runtime.chat.constrained_case import at_random, first_of, generate

from sottovoce.chat.constraint import Constraints, Thinking, response_schema
from sottovoce.chat.schema import read_schema
from sottovoce.chat.thinking import ThinkingTags
from sottovoce.errors import EngineError, InputError, MissingExtraError

CONSTRAINTS = Constraints(vocabulary())


def form(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def an_object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SCHEMAS: dict[str, Any] = {
    "bounds": an_object(n={"type": "integer", "minimum": -3, "maximum": 12}),
    "open bounds": an_object(n={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
    "large bounds": an_object(n={"type": "integer", "minimum": 998, "maximum": 1203}),
    "multiples": an_object(n={"type": "integer", "multipleOf": 5, "minimum": 10, "maximum": 100}),
    "pattern": an_object(code={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,5}$"}),
    "lengths": an_object(s={"type": "string", "minLength": 2, "maxLength": 5}),
    "unicode": an_object(s={"enum": ["größer", "東京", "👩‍👩‍👧", 'quote " and \\']}),
    "arrays": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 2, "maxItems": 4},
    "arrays of arrays": {
        "type": "array",
        "items": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2},
        "minItems": 1,
        "maxItems": 3,
    },
    "tuple": {"type": "array", "prefixItems": [{"type": "integer"}, {"enum": ["a"]}], "items": False, "minItems": 2},
    "union": {"anyOf": [an_object(a={"type": "integer", "maximum": 9, "minimum": 0}), an_object(b={"type": "null"})]},
    "kinds": an_object(v={"type": ["boolean", "null"]}),
    "one of": {"oneOf": [an_object(kind={"const": "x"}), an_object(kind={"const": "y"}, n={"enum": [1, 2]})]},
    "all of": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]},
    "empty object": {"type": "object", "additionalProperties": False},
    "optional": {"type": "object", "properties": {"a": {"const": 1}, "b": {"const": 2}}, "additionalProperties": False},
    "map": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 5}},
    "references": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": an_object(
                name={"type": "string", "maxLength": 3},
                children={"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            )
        },
    },
    "date": an_object(d={"type": "string", "format": "date"}),
    "constant": {"const": {"a": [1, 2.5, None, "x"]}},
    "any": {},
    "true": True,
    "any object": {"type": "object"},
    "nested": an_object(
        a=an_object(b=an_object(c={"type": "array", "items": an_object(d={"enum": [1]}), "maxItems": 2}))
    ),
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", SCHEMAS)
def test_whatever_the_logits_the_answer_is_json_for_the_schema(name: str, seed: int) -> None:
    constraint = CONSTRAINTS.for_response(form(SCHEMAS[name]))
    assert constraint is not None
    text, ended = generate(constraint, at_random(seed), use_forced=seed % 2 == 0)
    if not ended:  # strings or lists without a bound need not end; what there is must be the beginning of JSON
        assert name in ("any", "true", "any object", "map", "references")
        return
    checker = jsonschema.Draft202012Validator(SCHEMAS[name], format_checker=jsonschema.FormatChecker())
    checker.validate(json.loads(text))


@pytest.mark.parametrize("seed", range(8))
def test_there_is_no_whitespace_to_ramble_in(seed: int) -> None:
    numbers = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 5}
    text, ended = generate(CONSTRAINTS.json(an_object(a=numbers, b=an_object(c=numbers)), "s"), at_random(seed))
    assert ended
    assert not any(character.isspace() for character in text)


def test_text_is_not_constrained() -> None:
    assert CONSTRAINTS.for_response({"type": "text"}) is None
    assert CONSTRAINTS.for_response(None) is None


def test_an_object_alone_is_complete_without_an_end() -> None:
    constraint = CONSTRAINTS.json({"const": 1}, "s")
    assert not constraint.may_end
    for token in constraint.forced() or vocabulary().encode("1", special=False):
        constraint.accept(token)
    assert constraint.may_end
    assert constraint.is_complete


def test_an_answer_may_end_exactly_where_the_mask_has_an_end() -> None:
    constraint = CONSTRAINTS.json({"type": "integer", "minimum": 1}, "s")
    ends = sorted(vocabulary().ends)
    assert not constraint.mask()[ends].any()
    constraint.accept(vocabulary().encode("1", special=False)[0])
    assert constraint.mask()[ends].all()
    assert not constraint.is_complete


def test_a_token_that_does_not_follow_is_refused() -> None:
    constraint = CONSTRAINTS.json({"type": "integer"}, "s")
    with pytest.raises(EngineError):
        constraint.accept(vocabulary().encode("}", special=False)[0])


def test_control_tokens_and_unused_ones_are_never_allowed_in_strings() -> None:
    constraint = CONSTRAINTS.json({"type": "string"}, "s")
    constraint.accept(vocabulary().encode('"', special=False)[0])
    allowed = np.flatnonzero(constraint.mask())
    assert len(allowed) > 200
    for token in allowed:
        assert vocabulary().token_bytes(int(token)) and not vocabulary().is_control(int(token))


def test_two_constraints_of_one_grammar_do_not_share_their_place() -> None:
    one = CONSTRAINTS.json({"enum": ["a", "b"]}, "s")
    one.accept(vocabulary().encode('"', special=False)[0])
    other = CONSTRAINTS.json({"enum": ["a", "b"]}, "s")
    assert generate(other, at_random(0))[0] in ('"a"', '"b"')


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "integer", "minimum": 3, "maximum": 1}, r"schema: .*minimum \(3\) is greater than maximum \(1\)"),
        (an_object(a=an_object(b={"enum": []})), r"schema\.properties\.a\.properties\.b: "),
        (an_object(a={"type": "string", "if": {}}), r'schema\.properties\.a: not supported: \["if"\]'),
        ({"type": "array", "items": {"not": {}}}, r'schema\.items: not supported: \["not"\]'),
        ({"type": "array", "uniqueItems": True, "items": {"type": "integer"}}, "uniqueItems"),
        (an_object(a=False), "required property 'a' is unsatisfiable"),
        (False, "Unsatisfiable"),
        ({"type": "string", "pattern": "^ab$", "minLength": 5}, "Unsatisfiable"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-ahead"),
        ({"type": "string", "pattern": "("}, "unclosed group"),
        ({"type": "string", "format": "postcode"}, "Unknown format: postcode"),
        ({"type": "letters"}, "Invalid type: letters"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "incompatible types"),
        ({"$ref": "#/$defs/x"}, "does not exist"),
        ({"$ref": "http://example.org/x"}, r"\$ref 'http://example.org/x' leads elsewhere"),
        (an_object(a={"$ref": "#"}), "no value satisfies the schema"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}}, "no value satisfies the schema"),
        ({"type": "array", "minItems": 1, "items": {"$ref": "#"}}, "no value satisfies the schema"),
        ({"type": "array", "minItems": 10**9}, "minItems is 1000000000, the limit is 100000"),
        ({"type": "string", "pattern": "a" * 2001}, "the pattern has 2001 characters"),
        ({"type": "string", "description": "a" * 200_000}, "the limit is 200000"),
        ("string", "'string' is not a JSON schema"),
        ({"properties": {"a": 3}}, r"schema\.properties\.a: 3 is not a JSON schema"),
        ({"enum": [float("nan")]}, "is not JSON"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused_by_place(schema: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        CONSTRAINTS.for_response(form(schema))
    assert "\n" not in str(error.value)


def test_a_schema_that_needs_itself_only_sometimes_is_taken() -> None:
    tree = {"anyOf": [{"const": 0}, {"type": "array", "items": {"$ref": "#"}, "minItems": 1, "maxItems": 1}]}
    assert read_schema(tree, "s") == tree


def test_a_schema_too_deep_is_refused() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(60):
        schema = {"type": "array", "items": schema}
    with pytest.raises(InputError, match="deeper than 48"):
        read_schema(schema, "s")


def test_a_schema_cannot_steer_the_library() -> None:
    schema = {"x-guidance": {"lenient": True, "whitespace_flexible": True}, "type": "array", "uniqueItems": True}
    with pytest.raises(InputError, match="uniqueItems"):
        CONSTRAINTS.for_response(form(schema))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"type": "yaml"}, "type 'yaml' is unknown; one of text, json_object, json_schema"),
        ({}, "type None is unknown"),
        ({"type": "json_schema"}, "needs"),
        ({"type": "json_schema", "json_schema": {"name": "x"}}, "needs"),
    ],
)
def test_a_wrong_response_format_is_named(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        response_schema(given)


@pytest.mark.parametrize("open_already", [True, False])
def test_a_model_may_think_before_its_json(open_already: bool) -> None:
    thinking = Thinking(ThinkingTags("<think>", "</think>"), open_already)
    schema = an_object(n={"enum": [1, 2]})
    said = ("" if open_already else "<think>") + 'well {"n": 3} </think>\n\n{"n":2}'
    text, ended = generate(CONSTRAINTS.json(schema, "s", thinking), first_of(said), use_forced=False)
    assert ended
    assert text == said


def test_a_model_need_not_think_before_its_json() -> None:
    thinking = Thinking(ThinkingTags("<think>", "</think>"))
    text, _ = generate(
        CONSTRAINTS.json(an_object(n={"enum": [1, 2]}), "s", thinking), first_of('{"n":2}'), use_forced=False
    )
    assert text == '{"n":2}'


class NoEnds:
    def __getattr__(self, name: str) -> Any:
        return frozenset() if name == "ends" else getattr(vocabulary(), name)


def test_a_model_without_an_end_is_refused() -> None:
    with pytest.raises(EngineError, match="no token that ends"):
        Constraints(NoEnds()).json({}, "s")


class SpaceFirst:
    """A vocabulary that puts a space before all text, as SentencePiece does for some models."""

    def __getattr__(self, name: str) -> Any:
        return getattr(vocabulary(), name)

    def encode(self, text: str, *, special: bool) -> list[int]:
        return vocabulary().encode(" " + text, special=special)


def test_forced_tokens_are_right_where_a_tokenizer_puts_a_space_first() -> None:
    constraint = Constraints(SpaceFirst()).json(an_object(long_name={"type": "integer"}), "s")
    spelt = b"".join(map(vocabulary().token_bytes, constraint.forced()))
    assert spelt
    assert b'{"long_name":'.startswith(spelt)


def test_without_llguidance_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'sottovoce\[chat\]'"):
        Constraints(vocabulary()).json({}, "s")
