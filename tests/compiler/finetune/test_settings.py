"""The table of options: what it takes, what it refuses and how it says so."""

import json
from pathlib import Path
from typing import Any

import pytest

from sottovoce.errors import InputError
from sottovoce_compiler.finetune.settings import (
    GROUPS,
    Settings,
    SettingsError,
    from_values,
    options,
    read_config,
)


def test_what_is_written_down_gives_the_same_settings_again(tmp_path: Path) -> None:
    made = Settings(data="x.jsonl", rank=8, learning_rate=0.01, packing=False).completed("text", "cpu")
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"settings": made.to_json()}))
    again = from_values(read_config(file), str(file))
    assert again == from_values({**made.to_json(), "data": str(tmp_path / "x.jsonl")}, "")
    assert again.completed("text", "cpu") == again


def test_the_command_line_stands_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('rank = 4\nlearning_rate = 1\nschedule = "linear"\ndata = "lines.jsonl"\n')
    found = from_values(read_config(file), "my.toml", {"rank": 32, "schedule": None})
    assert (found.rank, found.schedule, found.learning_rate) == (32, "linear", 1.0)
    assert found.data == str(tmp_path / "lines.jsonl"), "relative to the file that names it"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"learningrate": 1}, "no option 'learningrate'; did you mean learning_rate?"),
        ({"zzz": 1}, "no option 'zzz'; known: data, eval_data"),
        ({"rank": 0}, "rank = 0; at least 1 and up to 1024"),
        ({"rank": 2.5}, "rank = 2.5; a whole number"),
        ({"rank": True}, "rank = True; a whole number"),
        ({"learning_rate": 0}, "learning_rate = 0; more than 0 and up to 1"),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"learning_rate": "fast"}, "learning_rate = 'fast'; a number"),
        ({"packing": 1}, "packing = 1; true or false"),
        ({"method": "lara"}, "method = 'lara'; choose lora, rslora, dora"),
        ({"quantize": "int2"}, "quantize = 'int2'; choose none, int8, nf4"),
        ({"eval_fraction": 0.95}, "eval_fraction = 0.95; at least 0 and up to 0.9"),
        ({"data": 3}, "data = 3; text"),
        ({"epochs": None}, "epochs = None; a whole number"),
        ({"augment": "speed,echo"}, "augment = 'speed,echo'; 'echo' is none of speed, join, mask (or none)"),
        ({"strength": 0}, "strength = 0; more than 0 and up to 1"),
        ({"earlier_answers": "all"}, "earlier_answers = 'all'; choose leave, separate"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_what_can(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        from_values(values, "my.toml")
    assert str(caught.value).startswith("my.toml: ") and said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [("rank = ", "is not TOML"), ('{"rank": 4}', "is not TOML"), ("\x00", "is not TOML")],
)
def test_a_file_that_is_no_config_is_refused(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=said):
        read_config(file)
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(SettingsError, match="holds a list"):
        read_config(tmp_path / "x.json")
    with pytest.raises(SettingsError, match="No such file"):
        read_config(tmp_path / "none.toml")


def test_what_nobody_chose_depends_on_the_task() -> None:
    text, speech = (Settings().completed(kind, "cpu") for kind in ("text", "speech"))  # type: ignore[arg-type]
    assert (text.measure, speech.measure) == ("loss", "wer")
    assert text.batch_tokens != speech.batch_tokens and text.alpha == 2.0 * text.rank
    assert (text.dtype, text.device) == ("bfloat16", "cpu")
    assert Settings(eval_fraction=0.0).completed("speech", "cpu").measure == "loss"


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"measure": "wer"}, "text", "does not go with text; choose loss or exact_match"),
        ({"measure": "exact_match"}, "speech", "choose loss or wer"),
        ({"dtype": "float16"}, "text", "needs a GPU"),
    ],
)
def test_what_does_not_go_with_the_task_or_the_machine_is_refused(
    changes: dict[str, Any], kind: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        Settings(**changes).completed(kind, "cpu")


def test_patience_and_measures_need_something_to_measure_on() -> None:
    for changes in ({"patience": 2}, {"measure": "exact_match"}):
        with pytest.raises(SettingsError, match="needs something to measure on"):
            Settings(eval_fraction=0.0, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("given", "said"), [("{no", "Expecting"), ("[1]", "a JSON object is needed")])
def test_what_a_template_reads_is_an_object(given: str, said: str) -> None:
    with pytest.raises(SettingsError, match=f"template_variables = .*{said}"):
        from_values({"template_variables": given}, "my.toml")
    assert from_values({"template_variables": '{"enable_thinking": false}'}, "x").variables() == {
        "enable_thinking": False
    }
    assert from_values({}, "x").variables() == {}


def test_every_option_has_a_group_and_says_what_it_does() -> None:
    for name, (kind, _, option) in options().items():
        assert kind in (int, float, str, bool), name
        assert option.group in GROUPS and len(option.help) > 10, name


@pytest.mark.parametrize("other", [{"method": "dora"}, {"from_adapter": "mine"}])
def test_a_strength_goes_with_a_new_adapter_that_only_adds(other: dict[str, Any]) -> None:
    settings = from_values({"data": "a.jsonl", "strength": 0.5, **other}, "my.toml")
    with pytest.raises(SettingsError, match=r"strength = 0\.5 does not go with"):
        settings.completed("text", "cpu")
