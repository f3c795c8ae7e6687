"""Prompts of a wanted length, and schemas that a model of any size can fulfil within the limit."""

import json

from chat_prompts import SCHEMAS, passage, response_format, story


def words(text: str) -> int:
    return len(text.split())


def test_a_story_has_as_many_tokens_as_fit_and_not_one_sentence_more() -> None:
    for wanted in (40, 256, 900):
        sentences = story(wanted, words).count(".")
        assert words(passage(sentences)) <= wanted < words(passage(sentences + 1))


def test_a_story_is_one_sentence_at_least() -> None:
    assert story(1, words) == passage(1) != ""


def test_a_longer_passage_goes_on_where_a_shorter_one_ends_and_repeats_no_sentence() -> None:
    assert passage(50).startswith(passage(49))
    sentences = passage(10_000).split(". ")
    assert len(set(sentences)) == len(sentences)


def test_schemas_fix_how_long_an_answer_is() -> None:
    for _, schema in SCHEMAS.values():
        assert schema["minItems"] == schema["maxItems"]
        assert json.loads(json.dumps(response_format(schema)))["json_schema"]["schema"] == schema
