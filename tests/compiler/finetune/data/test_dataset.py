"""Text data from a file to a split, and what the report says of it."""

import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.chat.template_case import FAMILIES

from sottovoce.errors import InputError
from sottovoce_compiler.finetune.data import dataset
from sottovoce_compiler.finetune.data.dataset import TextData, TextOptions
from sottovoce_compiler.finetune.data.lines import DataError
from sottovoce_compiler.finetune.data.report import NOTES, DataReport, Part
from sottovoce_compiler.report.table import show
from sottovoce_compiler.sources import resolve

from .data_case import CONTEXT, checkpoint_of, learned_texts, write_lines

QUESTIONS: list[dict[str, Any]] = [{"prompt": f"Q{number}:", "completion": f" a{number}"} for number in range(40)]


def load(folder: Path, lines: Any, *, template: str | None = None, eval_lines: Any = None, **options: Any) -> TextData:
    file = write_lines(folder / "data.jsonl", lines)
    other = write_lines(folder / "eval.jsonl", eval_lines) if eval_lines is not None else None
    return TextData.load(file, checkpoint_of(folder, "chatml", template), TextOptions(**options), eval_data=other)


@pytest.mark.parametrize(
    ("line", "kind", "learned"),
    [
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "b"}]}, "chat", "b"),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "b"}]}, "chat", "b"),
        ({"instruction": "Hi", "output": "b"}, "instruction", "b"),
        ({"prompt": "Hi", "completion": " b"}, "prompt", " b"),
        ({"text": "Hi b"}, "text", "Hi b"),
    ],
)
def test_every_kind_becomes_examples(tmp_path: Path, line: Any, kind: str, learned: str) -> None:
    data = load(tmp_path, [line], template=FAMILIES["chatml"])
    assert data.report.kind == kind and data.eval == ()
    assert learned_texts(data.coder, data.train[0]) == [learned + "<|im_end|>"]


def test_examples_keep_the_datas_order_over_many_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_AT_ONCE", 7)
    data = load(tmp_path, QUESTIONS)
    assert [example.line for example in data.train] == list(range(1, 41))
    assert [learned_texts(data.coder, example) for example in data.train] == [[f" a{n}<|im_end|>"] for n in range(40)]


def test_a_fraction_is_kept_by_seed(tmp_path: Path) -> None:
    data, same, other = (load(tmp_path, QUESTIONS, eval_fraction=0.25, seed=seed) for seed in (1, 1, 2))
    lines = [sorted(example.line for example in one.eval) for one in (data, same, other)]
    assert len(lines[0]) == 10 and lines[0] == lines[1] != lines[2]
    assert data.report.sha256 == same.report.sha256 != other.report.sha256


def test_a_file_to_measure_on_may_be_given_and_its_lines_are_not_learned(tmp_path: Path) -> None:
    data = load(tmp_path, QUESTIONS, eval_lines=[QUESTIONS[3], {"text": "another kind"}][:1], eval_fraction=0.5)
    assert len(data.train) == 39 and len(data.eval) == 1 and data.report.shared == 1
    assert "examples taken out of train, as they are in eval too: 1" in data.report.notes()
    assert data.report.lines == 41


def test_a_file_to_measure_on_may_be_of_another_kind(tmp_path: Path) -> None:
    data = load(tmp_path, QUESTIONS, eval_lines=[{"text": "measured"}])
    assert learned_texts(data.coder, data.eval[0]) == ["measured<|im_end|>"]


LONG = [{"text": "a"}, {"text": "b" * 30}, {"text": "c" * 300}]


def test_examples_longer_than_the_context_are_refused_by_default(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 2 lines .*\n  line 2: is 5001 tokens, at most 4096 fit"):
        load(tmp_path, [{"text": "a"}, {"text": "b" * 5000}])
    assert CONTEXT == 4096


def test_examples_longer_than_the_limit_are_refused_cut_or_dropped_and_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 of 3 lines") as raised:
        load(tmp_path, LONG, max_tokens=20)
    assert [fault.line for fault in raised.value.faults] == [2, 3]
    cut = load(tmp_path, LONG, max_tokens=20, overflow="cut")
    assert [len(example) for example in cut.train] == [2, 20, 20] and cut.report.cut == 2
    assert "examples cut to 20 tokens: 2" in cut.report.notes()
    dropped = load(tmp_path, LONG, max_tokens=20, overflow="drop")
    assert [example.line for example in dropped.train] == [1] and dropped.report.dropped == 2


def test_an_example_as_long_as_the_limit_is_whole(tmp_path: Path) -> None:
    assert [len(example) for example in load(tmp_path, [{"text": "b" * 19}], max_tokens=20).train] == [20]


def test_an_example_that_is_cut_before_its_answer_is_dropped_and_counted(tmp_path: Path) -> None:
    lines = [{"prompt": "b" * 30, "completion": " c"}, {"prompt": "b", "completion": " c"}]
    data = load(tmp_path, lines, max_tokens=20, overflow="cut")
    assert [example.line for example in data.train] == [2]
    assert (data.report.cut, data.report.unlearned) == (1, 1)
    with pytest.raises(InputError, match=r"nothing is left to use of 1 lines; 0 are longer than 20 tokens, 1 have"):
        load(tmp_path, lines[:1], max_tokens=20, overflow="cut")
    with pytest.raises(InputError, match=r"eval\.jsonl: nothing is left"):
        load(tmp_path, lines[1:], eval_lines=lines[:1], max_tokens=20, overflow="drop")


def test_answers_after_a_marker_are_learned(tmp_path: Path) -> None:
    data = load(tmp_path, [{"text": "Q: b\nA: c d"}], answer_marker="\nA: ")
    assert learned_texts(data.coder, data.train[0]) == ["c d<|im_end|>"]
    with pytest.raises(InputError, match="an answer marker is for text data; in prompt data"):
        load(tmp_path, QUESTIONS, answer_marker="\nA: ")


def test_faults_of_all_lines_are_found_before_any_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_AT_ONCE", 3)
    with pytest.raises(DataError, match=r"data.jsonl: 15 of 15 lines cannot be used \(10 shown\)"):
        load(tmp_path, [{"text": "no mark"}] * 15, answer_marker="\nA: ")


def test_earlier_answers_can_be_learned_on_their_own(tmp_path: Path) -> None:
    turns = [{"role": role, "content": role[0]} for role in ("user", "assistant") * 2]
    lines = [{"messages": turns}] * 2
    assert len(load(tmp_path, lines, template=FAMILIES["qwen3"]).train) == 2
    data = load(tmp_path, lines, template=FAMILIES["qwen3"], earlier_answers="separate")
    assert [example.line for example in data.train] == [1, 2, 1, 2]
    assert data.report.noted == {"separate": 2} and data.report.repeated == 2


def test_speech_is_not_for_a_language_model(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(
        InputError, match="line 1 is speech data; this model takes chat or instruction or prompt or text"
    ):
        load(tmp_path, [{"audio": "a.wav", "text": "a"}])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"overflow": "squeeze"}, "overflow 'squeeze'; one of error, cut, drop"),
        ({"earlier_answers": "x"}, "earlier_answers 'x'; one of leave, separate"),
        ({"answer_marker": ""}, "an empty answer marker"),
        ({"eval_fraction": 1.0}, "an eval fraction of 1.0"),
        ({"max_tokens": 5000}, "examples of up to 5000 tokens; chatml has room for 2 to 4096"),
        ({"max_tokens": 1}, "examples of up to 1 tokens"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path: Path, options: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        load(tmp_path, QUESTIONS, **options)


def test_the_day_that_a_template_writes_is_fixed_and_reported(tmp_path: Path) -> None:
    line = {"instruction": "Hi", "output": "b"}
    noon = datetime(2026, 3, 4, 12)
    data = load(tmp_path, [line], template=FAMILIES["llama3"], date=noon)
    assert data.report.date == "2026-03-04" and "the template writes the date: 2026-03-04" in data.report.notes()
    assert "Today Date: 04 Mar 2026" in data.coder.decode(data.train[0].ids)
    assert load(tmp_path, [line], template=FAMILIES["chatml"]).report.date is None


def test_the_report_counts_what_is_there(tmp_path: Path) -> None:
    lines = [{"prompt": "b" * (length - 3), "completion": "c" if length % 2 else "cd"[:1]} for length in range(4, 104)]
    report = load(tmp_path, lines, eval_fraction=0.1).report  # lengths 3 + ... of prompt, answer and end
    lengths = sorted(report.train.lengths + report.eval.lengths)
    assert lengths == list(range(3, 103))
    assert report.train.labelled == 2 * 90 and report.eval.labelled == 2 * 10
    assert report.train.tokens + report.eval.tokens == sum(lengths)
    assert json.loads(json.dumps(report.to_json()))["train"]["examples"] == 90


def test_percentiles_are_lengths_that_occur() -> None:
    part = Part(tuple(range(1, 101)), 0)
    assert part.percentiles() == (1, 50, 90, 99, 100)
    assert Part((), 0).percentiles() == (0, 0, 0, 0, 0)
    assert Part((5,), 5).percentiles() == (5, 5, 5, 5, 5)


def test_the_histogram_has_every_doubling_between_the_shortest_and_the_longest() -> None:
    assert Part((5, 7, 8, 40, 63), 0).histogram() == ((4, 7, 2), (8, 15, 1), (16, 31, 0), (32, 63, 2))
    assert Part((), 0).histogram() == ()


def test_the_report_is_printed_with_what_was_left_out() -> None:
    noted = dict.fromkeys(NOTES, 3)
    part = Part((4, 6, 20), 11)
    report = DataReport("chat", 9, 20, part, Part((), 0), 1, 2, 3, 4, 5, noted, "2026-03-04", "ab")
    text, stream = str(report), io.StringIO()
    show(report.tables(), stream)
    assert stream.getvalue().splitlines()[0] == text.splitlines()[0] == "9 lines of chat data"
    assert text.splitlines()[2].split() == ["train", "3", "30", "11", "37%", "4", "6", "20", "20", "20"]
    assert "eval" not in text.splitlines()[3].split()
    assert len(report.notes()) == 5 + len(NOTES) + 1
    quiet = DataReport("chat", 9, 20, part, part, 0, 0, 0, 0, 0, {}, None, "ab")
    assert quiet.notes() == ()


@pytest.mark.weights
def test_smollm2_learns_the_answers_of_a_conversation_alone(tmp_path: Path) -> None:
    turns = [
        ("user", "What is a ferry?"),
        ("assistant", "A boat."),
        ("user", "And a fähre?"),
        ("assistant", "The same."),
    ]
    lines = [{"messages": [{"role": role, "content": text} for role, text in turns]}]
    data = TextData.load(write_lines(tmp_path / "data.jsonl", lines), resolve("smollm2-135m-instruct"))
    (example,) = data.train
    assert learned_texts(data.coder, example) == ["A boat.<|im_end|>", "The same.<|im_end|>"]
    assert data.coder.decode(example.ids).startswith("<|im_start|>system\nYou are a helpful AI assistant")
    assert data.report.notes() == ()


@pytest.mark.weights
def test_smollm2_has_the_tokens_that_transformers_gives(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    checkpoint = resolve("smollm2-135m-instruct")
    theirs = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(checkpoint.tokenizer_file)))
    messages = [{"role": "user", "content": "Sum 12 and 30,\n\n please."}, {"role": "assistant", "content": "42\n"}]
    data = TextData.load(write_lines(tmp_path / "data.jsonl", [{"messages": messages}]), checkpoint)
    ids = theirs.apply_chat_template(messages, chat_template=checkpoint.chat_template, return_dict=True)["input_ids"]
    ours = data.train[0].ids.tolist()
    assert ours == ids[: len(ours)] and theirs.decode(ids[len(ours) :]) == "\n"
    text = TextData.load(write_lines(tmp_path / "text.jsonl", [{"text": "Q: 12?\nA: yes"}]), checkpoint)
    assert text.train[0].ids.tolist() == [*theirs.encode("Q: 12?\nA: yes", add_special_tokens=False), text.coder.end]
