import json
from dataclasses import replace

from sottovoce.bench import BenchResult
from sottovoce_compiler.report.formats import FormatComparison, FormatFigures

from .chat_card_case import SCORES

GGUF = FormatFigures("gguf", "q4_k_m", "llama.cpp b1", 105_000_000, SCORES)
ONNX = FormatFigures("onnx", "int4", "onnxruntime 1", 108_000_000, replace(SCORES, kl=0.07))


def timed(tokens: float, prompt: float) -> BenchResult:
    machine = {"cpu": "a processor"}
    return BenchResult(0.2, 0.1, None, 200.0, 1, None, (1.0,), 2, machine, tokens, prompt, "engine")


def test_what_loses_less_and_what_is_smaller_is_better_and_nothing_is_said_of_speed() -> None:
    assert FormatComparison(GGUF, ONNX).better == {"quality": "gguf", "size": "gguf"}
    assert FormatComparison(ONNX, GGUF).better == {"quality": "gguf", "size": "gguf"}


def test_what_answers_faster_is_better_for_answers_and_for_prompts_apart() -> None:
    both = FormatComparison(replace(GGUF, speed=timed(100, 900)), replace(ONNX, speed=timed(150, 600)))
    assert both.better == {"quality": "gguf", "size": "gguf", "speed": "onnx", "prompt_speed": "gguf"}
    assert FormatComparison(both.chosen, ONNX).better == {"quality": "gguf", "size": "gguf"}


def test_equal_figures_part_nobody() -> None:
    same = replace(ONNX, scores=SCORES, bytes=GGUF.bytes)
    assert FormatComparison(GGUF, same).better == {"quality": "same", "size": "same"}


def test_losses_that_the_report_cannot_tell_apart_are_the_same() -> None:
    near = replace(ONNX, scores=replace(SCORES, kl=SCORES.kl + 1e-9))
    assert FormatComparison(GGUF, near).better["quality"] == "same"


def test_the_json_has_a_part_a_format_and_the_machine_only_where_it_was_timed() -> None:
    plain = FormatComparison(GGUF, ONNX).to_json()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["chosen"] == "gguf" and set(plain) == {"chosen", "gguf", "onnx", "better"}
    assert plain["onnx"]["quality"]["kl"] == 0.07 and "speed" not in plain["onnx"]
    speeds = FormatComparison(replace(GGUF, speed=timed(1, 2)), replace(ONNX, speed=timed(3, 4))).to_json()
    assert speeds["machine"] == {"cpu": "a processor"} and speeds["onnx"]["speed"]["tokens_per_s"] == 3


def test_the_table_has_a_column_a_format_and_what_was_not_measured_has_no_row() -> None:
    table = FormatComparison(GGUF, ONNX).table()
    rows = {row[0]: row[1:] for row in table.rows}
    assert table.heads == ("", "gguf q4_k_m", "onnx int4", "better")
    assert rows["KL from the source, mean"] == ("0.05", "0.07", "gguf") and "tokens a second" not in rows


def test_a_format_that_was_left_out_has_its_reason_in_the_title() -> None:
    found = FormatComparison(GGUF, None, "no tokenizer.json")
    assert found.better == {} and found.to_json()["left_out"] == "no tokenizer.json"
    assert found.table().title == "No other format: no tokenizer.json"
