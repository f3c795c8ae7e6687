"""What is measured on a packed model, with tiny random ones and with an engine that is told what to say."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sottovoce.chat.chat import Chat
from sottovoce.chat.types import Completion, ToolCall, Usage
from sottovoce.errors import IncompleteOutputError, InputError, MissingExtraError
from sottovoce_compiler.families import language_model
from sottovoce_compiler.lowerings.gguf.writer import write_gguf
from sottovoce_compiler.report import chat_measure
from sottovoce_compiler.report.chat_card import Sameness, Validity
from sottovoce_compiler.report.chat_measure import MAX_ANSWER, artifact_tokens, measure_chat, source_tokenizer
from sottovoce_compiler.report.language import WINDOW
from sottovoce_compiler.report.texts import TextSet
from sottovoce_compiler.sources import Checkpoint, resolve

from ..causal_case import config_of, random_model, save
from ..chat_compile_case import CHATML, TEXT, chat_folder, needs_llama_cpp
from ..lowerings.gguf.tokenizer_case import byte_level

TEXTS = TextSet("a text", (TEXT, "x = [1, 2]\n" * 5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_folder(tmp_path_factory.mktemp("chat") / "nano")


@pytest.fixture(scope="module")
def artifact(folder: Path) -> Path:
    """The model as a plain GGUF file in float32."""
    return gguf_of(resolve(str(folder)), folder.parent)


def gguf_of(checkpoint: Checkpoint, folder: Path) -> Path:
    needs_llama_cpp()
    write_gguf(language_model(checkpoint), checkpoint, folder / "nano.gguf")
    return folder / "nano.gguf"


def test_a_file_in_float32_is_its_source(folder: Path, artifact: Path) -> None:
    told: list[float] = []
    card = measure_chat(resolve(str(folder)), artifact, TEXTS, told.append)
    assert card.name == "nano" and (card.data, card.data_sha256) == ("a text", TEXTS.sha256)
    assert card.engine.startswith("llama.cpp ")
    assert card.scores is not None and card.scores.tokens == sum(len(text) - 8 for text in TEXTS.passages) - TEXT.count(
        "th"
    )
    assert card.scores.kl < 1e-4 and card.scores.top1 > 0.98  # the cache holds half precision
    assert card.tokenizer == Sameness(8, 8) and card.template == Sameness(14, 14)
    assert card.json is not None and card.tool_calls_required is not None
    assert (card.json.asked, card.tool_calls_required.asked) == (4, 4)
    assert told == sorted(told) and told[-1] == pytest.approx(1.0)


def test_another_models_weights_tokens_and_template_are_told_from_the_sources(folder: Path, tmp_path: Path) -> None:
    other = chat_folder(tmp_path / "other", CHATML.replace("user", "User").replace("<s>", "<s> "), rms_norm_eps=0.5)
    checkpoint = resolve(str(folder))
    card = measure_chat(checkpoint, gguf_of(resolve(str(other)), tmp_path), TEXTS)
    assert card.scores is not None and card.scores.kl > 0.01
    assert card.template is not None and card.template.equal < 14 and card.template.first == "one question"


def test_a_tokenizer_that_differs_is_shown_by_its_first_text(folder: Path, artifact: Path, tmp_path: Path) -> None:
    checkpoint = resolve(str(folder))
    assert checkpoint.tokenizer_file is not None
    values = json.loads(checkpoint.tokenizer_file.read_text())
    values["model"]["merges"] = []
    changed = tmp_path / "tokenizer.json"
    changed.write_text(json.dumps(values))
    card = measure_chat(replace(checkpoint, tokenizer_file=changed), artifact, TEXTS)
    assert card.tokenizer.equal < card.tokenizer.asked == 8
    assert card.tokenizer.first.startswith("'The harbour was quiet")


def test_a_model_without_a_template_is_asked_nothing(tmp_path: Path) -> None:
    checkpoint = resolve(str(chat_folder(tmp_path / "base", None)))
    card = measure_chat(checkpoint, gguf_of(checkpoint, tmp_path), TEXTS)
    assert (card.template, card.json, card.tool_calls, card.tool_calls_required) == (None, None, None, None)
    assert card.scores is not None and card.scores.tokens > 0


def test_a_model_with_little_room_is_measured_in_what_it_has(tmp_path: Path) -> None:
    """Its context is shorter than a window, and than every question with tools."""
    config = config_of("llama")
    assert config.max_position_embeddings < WINDOW
    save(random_model(config), tmp_path / "small")
    checkpoint = replace(resolve(str(tmp_path / "small")), chat_template=CHATML)
    with Chat(gguf_of(checkpoint, tmp_path), context=64) as chat:
        chat.load()
        ready, tokenizer = chat._ready, source_tokenizer(checkpoint)
        ready = replace(ready, engine=_with_context(ready.engine, 64))
        scores = chat_measure.compared(checkpoint, tokenizer, ready, TEXTS, lambda done: None)
        assert scores is not None and scores.kl < 1e-4
        assert chat_measure._answers(chat, lambda done: None)[1] == Validity(4, 0)


def _with_context(engine: Any, context: int) -> Any:
    """llama.cpp rounds contexts up."""

    class Small:
        def __init__(self) -> None:
            self.context = context

        def __getattr__(self, name: str) -> Any:
            return getattr(engine, name)

        def evaluate(self, tokens: Sequence[int], outputs: int) -> np.ndarray[Any, Any]:
            assert len(tokens) <= context
            return np.asarray(engine.evaluate(tokens, outputs=outputs))

    return Small()


def test_text_is_composed_before_it_is_compared_where_the_runtime_composes_it(tmp_path: Path) -> None:
    """Qwen's tokenizer composes characters; llama.cpp does not, and the runtime does it in its place."""
    from tokenizers import normalizers

    folder = chat_folder(tmp_path / "nano", kind="qwen2", vocab_size=1024)
    tokenizer = byte_level("qwen2")
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>", "bos_token": "<|begin|>"}')
    checkpoint = resolve(str(folder))
    card = measure_chat(checkpoint, gguf_of(checkpoint, tmp_path), TEXTS)
    assert card.tokenizer == Sameness(8, 8)
    with Chat(tmp_path / "nano.gguf") as chat:
        chat.load()
        assert chat._ready.composes
        assert artifact_tokens(chat._ready, "e\u0301") == artifact_tokens(chat._ready, "\u00e9")


def test_a_source_without_a_tokenizer_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"nano has no tokenizer\.json, so nothing can be measured"):
        source_tokenizer(replace(resolve(str(folder)), tokenizer_file=None))


class Told:
    """A chat that says what it is told to, and remembers what it was asked."""

    def __init__(self, says: Any) -> None:
        self.says, self.asked = says, list[dict[str, Any]]()

    def chat(self, messages: Any, **given: Any) -> Completion:
        self.asked.append(given)
        found = self.says(messages[0]["content"], given)
        if isinstance(found, Exception):
            raise found
        text, calls = (found, ()) if isinstance(found, str) else ("", tuple(found))
        return Completion(text, "", calls, "stop", Usage(1, 1, 0))


def answers(says: Any) -> tuple[tuple[Validity, Validity, Validity], Told]:
    chat = Told(says)
    return chat_measure._answers(chat, lambda done: None), chat  # type: ignore[arg-type]


GOOD = {
    "profile": '{"name": "Ada", "age": 36, "hobbies": ["sums"]}',
    "review": '{"sentiment": "negative", "confidence": 0.9}',
    "date": '{"date": "2027-03-04", "time": "14:30"}',
    "capitals": '[{"capital": "Rome", "country": "Italy"}, {"capital": "Oslo", "country": "Norway"}, '
    '{"capital": "Bern", "country": "Switzerland"}]',
}
CALLS = {
    "weather": ToolCall("1", "get_weather", '{"city": "Lisbon"}'),
    "alarm": ToolCall("1", "set_alarm", '{"hour": 7, "minute": 0}'),
    "dollars": ToolCall("1", "convert_currency", '{"amount": 250, "from": "USD", "to": "EUR"}'),
    "light": ToolCall("1", "switch_light", '{"room": "kitchen", "on": false}'),
}


def well(ask: str, given: dict[str, Any]) -> Any:
    if given.get("tools"):
        return [next(call for word, call in CALLS.items() if word in ask)]
    return next(text for word, text in GOOD.items() if word in ask)


def test_good_answers_are_counted_and_asked_for_without_chance() -> None:
    found, chat = answers(well)
    assert found == (Validity(4, 4), Validity(4, 4), Validity(4, 4))
    assert all(given["temperature"] == 0 and given["max_tokens"] == MAX_ANSWER for given in chat.asked)
    assert [given.get("tool_choice") for given in chat.asked] == [None] * 4 + ["auto", "required"] * 4
    assert chat.asked[0]["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize(
    "bad",
    [
        lambda ask, given: "{",
        lambda ask, given: "{}",
        lambda ask, given: IncompleteOutputError("cut off", "{"),
        lambda ask, given: InputError("the template refuses"),
        lambda ask, given: [ToolCall("1", "no_such_tool", "{}")] if given.get("tools") else "[]",
        lambda ask, given: [ToolCall("1", "get_weather", "{}")] if given.get("tools") else "null",
        lambda ask, given: [*well(ask, given), ToolCall("2", "get_weather", "{}")] if given.get("tools") else "",
    ],
)
def test_bad_answers_are_none(bad: Any) -> None:
    assert answers(bad)[0] == (Validity(4, 0), Validity(4, 0), Validity(4, 0))


def test_a_missing_library_is_not_taken_for_bad_answers() -> None:
    with pytest.raises(MissingExtraError):
        answers(lambda ask, given: MissingExtraError("pip install it"))


def test_the_logits_of_the_artifact_begin_with_an_empty_context_each_time(artifact: Path) -> None:
    with Chat(artifact) as chat:
        chat.load()
        logits = chat_measure.artifact_logits(chat._ready)
        first = logits([5, 6, 7, 8]).copy()
        assert first.shape == (4, 288)
        logits([9, 10, 11])
        np.testing.assert_array_equal(logits([5, 6, 7, 8]), first)


def test_one_machine_has_one_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= chat_measure.THREADS <= 4
    seen: list[Any] = []

    def opened(path: Path, threads: int | None = None) -> Any:
        seen.append(threads)
        raise InputError("stop here")

    monkeypatch.setattr(chat_measure, "Chat", opened)
    with pytest.raises(InputError, match="stop here"):
        measure_chat(SimpleNamespace(), Path("x"), TEXTS)  # type: ignore[arg-type]
    assert seen == [chat_measure.THREADS]
