import json
from dataclasses import replace

from sottovoce_compiler.report.chat_card import Sameness, Validity

from .chat_card_case import CARD, GATE


def rows(card: object = CARD) -> dict[str, tuple[str, ...]]:
    (table,) = GATE.check(card).tables()  # type: ignore[arg-type]
    return {row[0]: tuple(row[1:]) for row in table.rows}


def test_each_figure_stands_beside_its_sources_and_its_limit() -> None:
    found = rows()
    assert found["perplexity"] == ("21.000", "20.000", "24.000")
    assert found["KL from the source, mean"] == ("0.05", "0", "0.1")
    assert found["KL from the source, 99th percentile"] == ("0.2", "0", "")
    assert found["same likeliest token"] == ("95.0%", "100.0%", "90.0%")
    assert found["tokens scored"] == ("1000", "", "")
    assert found["texts tokenized alike"] == ("12 of 12", "", "all")
    assert found["conversations rendered alike"] == ("14 of 14", "", "all")
    assert found["answers to a schema, valid"] == ("4 of 4", "", "")
    assert found["tool calls of its own accord, valid"] == ("0 of 4", "", "")
    assert found["tool calls when required, valid"] == ("3 of 4", "", "")


def test_the_title_names_the_model_and_the_data() -> None:
    (table,) = GATE.check(CARD).tables()
    assert table.title == "nano on some text"
    assert all(len(row) == 4 for row in table.rows)


def test_what_was_not_measured_has_no_row() -> None:
    plain = replace(CARD, scores=None, template=None, json=None, tool_calls=None, tool_calls_required=None)
    assert list(rows(plain)) == ["texts tokenized alike"]


def test_the_json_has_the_keys_of_the_report() -> None:
    values = CARD.to_json()
    assert json.loads(json.dumps(values)) == values
    assert {"tokens", "perplexity", "source_perplexity", "kl", "kl_p99", "top1"} < set(values)
    assert values["tokenizer"] == {"asked": 12, "equal": 12}
    assert values["tool_calls_required"] == {"asked": 4, "valid": 3, "rate": 0.75}
    plain = replace(CARD, scores=None, template=None, json=None, tool_calls=None, tool_calls_required=None)
    assert set(plain.to_json()) == {"tokenizer"}


def test_nothing_asked_is_a_rate_of_nothing_and_no_error() -> None:
    assert Validity(0, 0).to_json()["rate"] == 0.0
    assert Sameness(3, 2, "the first that differs").to_json() == {"asked": 3, "equal": 2}
