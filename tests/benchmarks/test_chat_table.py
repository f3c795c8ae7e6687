"""The page of chat.py: which figures count towards the aims, and what happens to stages that were not run."""

from typing import Any

from chat_table import goals, render


def model(**bundles: dict[str, Any]) -> dict[str, Any]:
    return {"bundles": {name.replace("_", " "): bundle for name, bundle in bundles.items()}, "stage_s": {}}


def timed(generation: float | None = None, prompt: float = 1.0) -> dict[str, Any]:
    rates = {"prompt_tokens_per_s": 700.0, "tokens_per_s": 110.0, "prompt_tokens": 256, "tokens": 96, "pieces": 96}
    ratios = {"generation": generation, "prompt": prompt, "whole": 1.0}
    return rates if generation is None else {**rates, "ours_against": ratios}


def page(part: dict[str, Any]) -> str:
    flags = {"cores": 2, "flags": ["avx2"], "system": "Linux", "python": "3.11", "load_average_before": 0.0}
    machine = {"cpu": "A processor", "cpu_family_model": "1/2", **flags}
    head = {"machine": machine, "threads": 2, "date": "2026-01-01", "command": "python x", "settings": {"rest": 1}}
    return render({**head, "models": {"smollm2": part}})


def by_name(part: dict[str, Any]) -> dict[str, Any]:
    return {goal.what: goal for goal in goals(part)}


def test_the_worst_of_all_prompts_counts() -> None:
    loop = {
        "systems": {"sottovoce": {"engine": "llama.cpp"}},
        "greedy 256": {"sottovoce": timed(), "llama.cpp": timed(0.99), "llama.cpp-batches": timed(0.5)},
        "sampled": {"sottovoce": timed(), "llama.cpp": timed(0.96)},
    }
    part = model(llama_int4={"loop": loop})
    goal = by_name(part)["tokens/s through Chat, against a bare llama.cpp loop"]
    assert goal.figure == "0.960x" and goal.margin < 0
    assert "| 0.97x | 0.960x | not reached |" in page(part)


def test_onnxruntime_genai_is_compared_in_our_mix_where_there_is_one() -> None:
    systems = {"sottovoce-engine": timed(), "genai int4": timed(0.7), "genai int4, our mix": timed(1.1)}
    part = model(onnx_int4={"onnx": {"systems": {}, "greedy 256": systems}})
    goal = by_name(part)["our onnxruntime engine, tokens/s against onnxruntime-genai"]
    assert goal.figure == "1.100x" and goal.margin >= 0
    only = {"sottovoce-engine": timed(), "genai int8": timed(0.7)}
    part = model(onnx_int8={"onnx": {"systems": {}, "greedy 256": only}})
    assert by_name(part)["our onnxruntime engine, tokens/s against onnxruntime-genai"].margin < 0


def test_losses_are_held_against_the_gguf_of_as_many_bits() -> None:
    kl = {"onnx int8": 0.004, "gguf q8_0": 0.005, "onnx int4": 0.07, "gguf q4_k_m": 0.06, "gguf fp32": 3e-6}
    kl["gguf fp32, cache in float32"] = 1e-11
    part = model() | {"kl": {"precisions": {name: {"kl": value} for name, value in kl.items()}}}
    found = by_name(part)
    assert found["KL of onnx int8, no more than gguf q8_0's"].margin >= 0
    assert found["KL of onnx int4, no more than gguf q4_k_m's"].margin < 0
    assert found["KL of the F32 GGUF from the source"].figure == "1e-11"


def test_one_byte_that_differs_is_one_too_many() -> None:
    same, other = {"differing": 0}, {"differing": 1}
    what = "bytes in which our quantizers differ from ggml's"
    part = model() | {"quantize": {"tensors": 3, "Q4_0": {"plain": same, "importance": same}}}
    assert by_name(part)[what].margin >= 0
    part["quantize"]["Q6_K"] = {"plain": same, "importance": other}
    assert by_name(part)[what].margin < 0


def test_a_stage_that_was_not_run_or_was_left_out_has_neither_table_nor_aim() -> None:
    part = model(llama_int4={"turn": {"left_out": "no chat template"}})
    assert goals(part) == []
    assert "###" not in page(part)


def test_a_turn_has_its_two_ratios() -> None:
    figures = {"cold_s": 1.3, "warm_s": 0.05, "reloaded_s": 0.1, "warm_sooner": 26.0, "reloaded_sooner": 13.0}
    turn = {**figures, "load_model_s": 0.2, "session_bytes": 20_600_000, "prompt_tokens": 900}
    part = model(llama_int4={"turn": turn})
    assert "| llama int4 | 900 | 1300 | 50.0 (26x sooner) | 100.0 (13.0x sooner) | 200 | 20.6 |" in page(part)
    assert all(goal.margin >= 0 for goal in goals(part))
