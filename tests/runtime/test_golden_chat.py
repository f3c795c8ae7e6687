"""Golden cases of chat bundles, with a tiny random model in llama.cpp: they hold, and what is wrong is said."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_case import manifest_fields
from chat_bundle_case import make_chat_bundle
from llama_case import needs_llama
from tiny_gguf import CHATML, tiny_gguf

from sottovoce.chat.loading import LoadedChat
from sottovoce.cli import main
from sottovoce.errors import BundleError, InputError
from sottovoce.golden import MAX_MEAN_DIFFERENCE, verify
from sottovoce.golden_chat import (
    DAY,
    MAX_TOKENS,
    TEMPLATE_CASE,
    ChatCase,
    check_case,
    check_template,
    choose,
    render_case,
    score,
)
from sottovoce_compiler.pack import write_bundle

pytestmark = needs_llama
PROMPT = (287, 84, 104, 101, 32, 260)
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
RAW: dict[str, Any] = {"prompt": [1, 2], "text": "a", "tokens": [3], "logprobs": [-0.5]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def ready(model: Path) -> Any:
    loaded = LoadedChat.open(model, 1, None)
    yield loaded
    loaded.engine.close()


@pytest.fixture(scope="module")
def cases(model: Path) -> dict[str, Any]:
    """A case as the compiler makes it, and the rendered conversation."""
    loaded = LoadedChat.open(model, 1, None)
    tokens = choose(loaded, PROMPT, 40)
    logprobs = score(loaded, PROMPT, tokens)[0]
    rendered = {"messages": MESSAGES, "rendered": render_case(loaded, MESSAGES)}
    loaded.engine.close()
    case = ChatCase(PROMPT, "nonsense", tokens, tuple(round(float(value), 4) for value in logprobs))
    return {"golden/case-0.json": case.to_json(), TEMPLATE_CASE: rendered}


def bundle(path: Path, model: Path, cases: dict[str, Any], template: str = CHATML) -> Path:
    engine = {"name": "llama.cpp", "min_version": "0.1", "max_version": None, "opset": None, "cpu_features": []}
    shape = {"layers": 2, "kv_heads": 2, "head_width": 16, "context": 256}
    files: dict[str, bytes | Path] = {"model.gguf": model, "chat_template.jinja": template.encode()}
    files |= {name: json.dumps(case).encode() for name, case in cases.items()}
    return write_bundle(path / "b.svb", manifest_fields(task="chat", audio={}, engine=engine, model=shape), files)


def test_a_good_bundle_is_verified_by_its_cases_and_its_template(
    model: Path, cases: dict[str, Any], tmp_path: Path
) -> None:
    found = verify(bundle(tmp_path, model, cases), threads=1)
    assert found.failures == () and found.ok
    assert "golden/case-0.json: nonsense" in found.checks and any(TEMPLATE_CASE in check for check in found.checks)


def test_another_model_with_right_digests_fails_by_the_name_of_the_case(cases: dict[str, Any], tmp_path: Path) -> None:
    found = verify(bundle(tmp_path, tiny_gguf(tmp_path / "other.gguf", seed=1), cases), threads=1)
    assert len(found.failures) == 2 and all(one.startswith("golden/case-0.json: ") for one in found.failures)
    assert f"more than {MAX_MEAN_DIFFERENCE}" in found.failures[0] and "still the likeliest" in found.failures[1]


def test_another_template_fails_with_both_renderings(model: Path, cases: dict[str, Any], tmp_path: Path) -> None:
    template = CHATML.replace("assistant", "helper")
    (failure,) = verify(bundle(tmp_path, model, cases, template), threads=1).failures
    assert failure.startswith(f"{TEMPLATE_CASE}: from character ")
    assert '"helper\\n", not "assistant\\n"' in failure


def test_a_bundle_without_cases_is_not_verified(model: Path, tmp_path: Path) -> None:
    (failure,) = verify(bundle(tmp_path, model, {}), threads=1).failures
    assert "no golden cases" in failure


def test_what_is_chosen_is_the_likeliest_and_is_judged_as_such_beyond_one_part(
    ready: LoadedChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = choose(ready, PROMPT, 40)
    monkeypatch.setattr("sottovoce.golden_chat.PART", 5)
    logprobs, likeliest = score(ready, PROMPT, tokens)
    assert len(tokens) > 5 and logprobs.shape == likeliest.shape == (len(tokens),)
    assert likeliest.tolist() == list(tokens)
    assert np.all(logprobs > np.log(1 / ready.engine.vocabulary.size)) and np.all(logprobs <= 0)


def test_the_parts_in_which_tokens_are_judged_change_nothing(
    ready: LoadedChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = tuple(range(40, 60))
    whole = score(ready, PROMPT, tokens)[0]
    monkeypatch.setattr("sottovoce.golden_chat.PART", 3)
    np.testing.assert_allclose(score(ready, PROMPT, tokens)[0], whole, atol=1e-3)


def test_judging_leaves_nothing_behind_that_a_later_prompt_would_mistake_for_its_own(ready: LoadedChat) -> None:
    before = score(ready, PROMPT, (40, 41))[0]
    ready.prefix.truncate(0)
    ready.prefix.evaluate([7] * 50)
    np.testing.assert_array_equal(score(ready, PROMPT, (40, 41))[0], before)


def test_choosing_stops_where_the_model_ends_or_enough_is_chosen(ready: LoadedChat) -> None:
    tokens = choose(ready, PROMPT, 5)
    assert len(tokens) <= 5 and not set(tokens[1:]) & ready.engine.vocabulary.ends
    assert choose(ready, PROMPT, 1) == tokens[:1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": []}, "0 tokens of a prompt"),
        ({"tokens": []}, "0 after it"),
        ({"logprobs": [-1.0, -2.0]}, "2 log probabilities"),
        ({"tokens": [3] * (MAX_TOKENS + 1), "logprobs": [0.0] * (MAX_TOKENS + 1)}, f"{MAX_TOKENS + 1} after it"),
        ({"tokens": [-1]}, "token -1"),
        ({"tokens": [1.5]}, "1.5 is not a token"),
        ({"tokens": "abc"}, "not a golden case"),
        ({"prompt": None}, "not a golden case"),
        ({"logprobs": ["x"]}, "not a golden case"),
    ],
)
def test_a_case_that_makes_no_sense_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleError, match=r"golden/case-7\.json") as error:
        ChatCase.of(RAW | changes, "golden/case-7.json")
    assert said in str(error.value)
    with pytest.raises(BundleError, match="not a golden case"):
        ChatCase.of({}, "golden/case-7.json")


def test_a_case_beyond_the_vocabulary_or_the_context_is_a_failure_and_no_crash(ready: LoadedChat) -> None:
    case = ChatCase.of(RAW, "case")
    assert "beyond the vocabulary" in check_case(ready, replace(case, tokens=(10**6,)))[0]
    (failure,) = check_case(ready, replace(case, prompt=(1,) * 256))
    assert "more than the context of 256" in failure


def test_log_probabilities_that_are_no_numbers_fail(ready: LoadedChat) -> None:
    assert check_case(ready, ChatCase((1, 2), "", (3,), (float("nan"),)))


@pytest.mark.parametrize("raw", [{}, {"messages": "hello", "rendered": ""}, {"messages": [], "rendered": 5}])
def test_a_damaged_template_case_is_a_failure(raw: dict[str, Any], ready: LoadedChat) -> None:
    (failure,) = check_template(ready, raw)
    assert "messages and rendered are needed" in failure
    (failure,) = check_template(ready, {"messages": [{"role": "martian"}], "rendered": ""})
    assert "refused" in failure and "martian" in failure


def test_a_template_that_asks_for_the_date_is_told_the_same_day_always(tmp_path: Path) -> None:
    template = "{{ strftime_now('%d %B %Y') }} {{ messages[0]['content'] }}"
    loaded = LoadedChat.open(tiny_gguf(tmp_path / "dated.gguf", template=template), 1, None)
    assert render_case(loaded, [{"role": "user", "content": "Hi"}]) == f"{DAY:%d %B %Y} Hi"
    loaded.engine.close()


def test_a_damaged_case_is_a_failure_and_no_crash(model: Path, tmp_path: Path) -> None:
    (failure,) = verify(bundle(tmp_path, model, {"golden/case-0.json": [1]}), threads=1).failures
    assert "golden/case-0.json" in failure


def test_a_bundle_for_onnxruntime_is_verified_in_the_same_way(tmp_path: Path) -> None:
    loaded = LoadedChat.open(make_chat_bundle(tmp_path / "draft.svb"), 1, None)
    prompt, tokens = (5, 6, 7), (8, 9)
    logprobs = score(loaded, prompt, tokens)[0]
    good = ChatCase(prompt, "", tokens, tuple(map(float, logprobs)))
    found = check_case(loaded, good), check_case(loaded, replace(good, logprobs=(-50.0, -50.0)))
    loaded.engine.close()
    assert all("likeliest" in one for one in found[0]) and "log probabilities differ" in found[1][0]


def test_a_plain_gguf_file_has_nothing_to_be_verified_by(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="nothing to verify it by"):
        verify(model)
    assert main(["verify", str(model)]) == 2 and "compile" in capsys.readouterr().err
