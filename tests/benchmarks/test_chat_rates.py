"""Ratios of rounds that take turns, and how the command line becomes models."""

import argparse
from pathlib import Path

import pytest
from chat import _genai, main, source_and_bundle
from chat_plan import LLAMA_CPP, ChatBundle, ChatModel, grouped
from chat_stages import STAGES, chosen
from peers.chat import CHAT_SYSTEMS, Answered, Rates, available, create_chat, steps


def test_a_rate_leaves_the_first_token_out() -> None:
    assert Answered(first_s=2.0, rest_s=4.0, tokens=9, pieces=9).rate == 2.0


def test_a_ratio_is_that_of_each_round_so_that_a_slow_minute_hits_both() -> None:
    ours = Rates(100, tuple(Answered(1.0 * slow, 1.0 * slow, 11, 11) for slow in (1, 5, 1)))
    theirs = Rates(100, tuple(Answered(2.0 * slow, 0.5 * slow, 11, 11) for slow in (1, 5, 1)))
    found = ours.against(theirs)
    assert found["generation"] == pytest.approx(0.5)
    assert found["prompt"] == pytest.approx(2.0)
    assert found["whole"] == pytest.approx(1.25)


def test_steps_are_compared_by_their_medians_which_a_slow_one_does_not_move() -> None:
    assert steps([1.0, 1.5, 3.5]) == (0.5, 2.0)
    ours = Rates(10, (Answered(1.0, 9.0, 4, 4, (1.0, 7.0, 1.0)), Answered(1.0, 3.0, 4, 4, (1.0, 1.0, 1.0))))
    theirs = Rates(10, (Answered(1.0, 6.0, 4, 4, (2.0, 2.0, 2.0)), Answered(1.0, 9.0, 4, 4, (2.0, 2.0, 5.0))))
    assert ours.against(theirs)["step"] == 2.0
    assert theirs.to_json()["median_step_s"] == 2.0
    plain = Rates(10, (Answered(1.0, 6.0, 4, 4),) * 2)
    assert "step" not in ours.against(plain) and "median_step_s" not in plain.to_json()


def test_answers_of_two_lengths_are_compared_by_the_token() -> None:
    ours, theirs = Rates(10, (Answered(1.0, 3.0, 4, 4),)), Rates(10, (Answered(1.0, 7.0, 8, 8),))
    assert ours.against(theirs)["whole"] == pytest.approx(1.0)


def test_rates_keep_every_round_and_say_how_many_pieces_there_were() -> None:
    found = Rates(256, (Answered(0.5, 1.0, 5, 4), Answered(0.25, 2.0, 5, 4), Answered(0.5, 4.0, 5, 4))).to_json()
    assert found["prompt_tokens_per_s"] == 512 and found["tokens_per_s"] == 2.0
    assert (found["first_s"], found["rest_s"]) == ([0.5, 0.25, 0.5], [1.0, 2.0, 4.0])
    assert (found["tokens"], found["pieces"]) == (5, 4)


def test_a_system_without_its_library_is_left_out() -> None:
    assert available(["sottovoce", "llama.cpp"]) == ("sottovoce", "llama.cpp")
    for name in available(list(CHAT_SYSTEMS)):
        assert name in CHAT_SYSTEMS


def test_an_unknown_system_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(LookupError, match=r"'ollama'.*sottovoce"):
        create_chat("ollama", None)  # type: ignore[arg-type]


def test_sources_and_bundles_are_taken_apart() -> None:
    assert source_and_bundle("smollm2=a.svb") == ("smollm2", Path("a.svb"))
    assert source_and_bundle("pypi:llm==1.0") == ("pypi:llm==1.0", None)
    assert source_and_bundle("pypi:llm==1.0=a.svb") == ("pypi:llm==1.0", Path("a.svb"))
    assert _genai("smollm2:int4, our mix=folder") == ("smollm2", "int4, our mix", Path("folder"))
    with pytest.raises(argparse.ArgumentTypeError, match="SOURCE:NAME=FOLDER"):
        _genai("int4=folder")


def test_several_bundles_of_one_source_are_one_model(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.gguf", "b.gguf")]
    for file in files:
        file.write_bytes(b"GGUF" + bytes(20))
    given = [("one", files[0]), ("two", None), ("one", files[1])]
    models = grouped(given, [("one", "int4", tmp_path)])
    assert [(model.name, len(model.bundles)) for model in models] == [("one", 2), ("two", 0)]
    assert models[0].genai == {"int4": tmp_path} and not models[1].genai
    assert models[0].bundles[0].name == "llama.cpp as given"


def test_no_folder_of_this_machine_becomes_a_models_name(tmp_path: Path) -> None:
    file = tmp_path / "gemma.gguf"
    file.touch()
    assert ChatModel(str(file), ()).name == "gemma"


def test_a_stage_is_run_on_the_bundles_of_its_engine_and_some_on_the_first_of_each() -> None:
    llama, onnx = ChatBundle(Path("a"), LLAMA_CPP, "int4"), ChatBundle(Path("b"), "onnxruntime", "int8")
    other = ChatBundle(Path("c"), LLAMA_CPP, "int8")
    model = ChatModel("x", (llama, onnx, other))
    assert chosen(STAGES["loop"], model) == (llama, other)
    assert chosen(STAGES["onnx"], model) == (onnx,)
    assert chosen(STAGES["memory"], model) == (llama, onnx, other)
    assert set(chosen(STAGES["turn"], model)) == {llama, onnx}


def test_a_plain_gguf_is_used_where_it_lies(tmp_path: Path) -> None:
    plain = tmp_path / "a.gguf"
    plain.write_bytes(b"GGUF")
    assert ChatBundle(plain, LLAMA_CPP, "int4").gguf_file(tmp_path / "work") == plain
    assert not (tmp_path / "work").exists()


def test_a_stage_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--model", "x", "--stages", "speed"])
    assert "'speed' is none of loop" in capsys.readouterr().err
