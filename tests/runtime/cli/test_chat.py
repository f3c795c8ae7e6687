"""`sottovoce chat` for one answer, with a chat that says what it was told to: pipes, options, JSON, sessions."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_case import needs_llama
from tests.runtime.cli.talk_case import FakeChat, last
from tiny_gguf import tiny_gguf

import sottovoce
from sottovoce.chat.types import Delta, ToolCall
from sottovoce.cli import main
from sottovoce.errors import IncompleteOutputError

Capture = pytest.CaptureFixture[str]
CUT = "the answer was cut off"


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeChat]:
    class Fake(FakeChat):
        made: list[FakeChat] = []  # noqa: RUF012

    monkeypatch.setitem(vars(sottovoce), "Chat", Fake)
    return Fake


@pytest.fixture(autouse=True)
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Nothing at all, until a test pipes something in."""
    opened = [open(os.devnull)]  # noqa: SIM115
    monkeypatch.setattr("sys.stdin", opened[0])

    def pipe(body: bytes) -> None:
        reading, writing = os.pipe()
        os.write(writing, body)
        os.close(writing)
        opened.append(os.fdopen(reading))
        monkeypatch.setattr("sys.stdin", opened[-1])

    yield pipe
    for one in opened:
        one.close()


def asked(fake: type[FakeChat]) -> tuple[list[Any], dict[str, Any]]:
    (question,) = fake.made[-1].asked
    return question


def test_a_prompt_is_answered_on_stdout_and_nothing_else_is_there(fake: Any, capsys: Capture) -> None:
    assert main(["chat", "b.svb", "--prompt", "abc"]) == 0
    assert tuple(capsys.readouterr()) == ("[u] cba!\n", "")
    assert fake.made[0].log == ["load", "close"] and asked(fake)[1] == {"response_format": None}


def test_a_pipe_is_the_prompt(fake: Any, stdin: Any, capsys: Capture) -> None:
    for arguments in ([], ["--prompt", "-"]):
        stdin("\ufeffgrüße\r\n\n".encode())
        assert main(["chat", "b.svb", *arguments]) == 0
        assert asked(fake)[0] == [{"role": "user", "content": "grüße"}]
    assert capsys.readouterr().out == "[u] eßürg!\n" * 2


def test_a_prompt_and_a_pipe_are_one_question(fake: Any, stdin: Any) -> None:
    stdin(b"+ a line\n")
    assert main(["chat", "b.svb", "--prompt", "What changed?"]) == 0
    assert asked(fake)[0][-1]["content"] == "What changed?\n\n+ a line"


def test_a_pipe_that_holds_nothing_leaves_the_prompt_alone(fake: Any, stdin: Any) -> None:
    stdin(b"")
    assert main(["chat", "b.svb", "--prompt", "abc"]) == 0
    assert asked(fake)[0][-1]["content"] == "abc"


def test_options_given_are_those_of_an_answer_and_the_others_are_the_models(fake: Any) -> None:
    arguments = ["--temperature", "0.2", "--top-p", "0.5", "--top-k", "5", "--seed", "7", "--max-tokens", "9"]
    arguments += ["--stop", "END", "--stop", "\n", "--threads", "3", "--context", "64", "--system", "Be brief."]
    assert main(["chat", "b.svb", "--prompt", "abc", *arguments]) == 0
    messages, options = asked(fake)
    assert messages == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "abc"}]
    expected = {"temperature": 0.2, "top_p": 0.5, "top_k": 5, "seed": 7, "max_tokens": 9, "stop": ["END", "\n"]}
    assert options == expected | {"response_format": None}
    assert (fake.made[0].path, fake.made[0].threads, fake.made[0].wanted) == ("b.svb", 3, 64)


def test_json_is_one_object_with_everything_known_of_the_answer(fake: Any, capsys: Capture) -> None:
    call = ToolCall("call_1", "look", "{}")
    fake.script = lambda messages: [Delta(reasoning="hm"), Delta("é"), Delta("!", "", (call,)), last(cached_tokens=2)]
    assert main(["chat", "b.svb", "--prompt", "abc", "--json"]) == 0
    out = capsys.readouterr().out
    data = json.loads(out)
    assert out.count("\n") == 1 and "é" in out
    assert (data["text"], data["reasoning"], data["finish_reason"], data["engine"]) == ("é!", "hm", "stop", "fake 1")
    assert data["tool_calls"] == [{"id": "call_1", "name": "look", "arguments": "{}"}]
    assert data["usage"] == {
        **{"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15, "cached_tokens": 2, "dropped_messages": 0}
    }
    assert data["tokens_per_s"] > 0 and data["first_token_s"] >= 0


def test_no_speed_is_told_of_an_answer_that_came_in_one_piece(fake: Any, capsys: Capture) -> None:
    fake.script = lambda messages: [last("all")]
    assert main(["chat", "b.svb", "--prompt", "abc", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens_per_s"] is None


def test_thinking_is_not_part_of_the_answer_where_nobody_watches(fake: Any, capsys: Capture) -> None:
    fake.script = lambda messages: [Delta(reasoning="hm"), last("yes")]
    assert main(["chat", "b.svb", "--prompt", "abc"]) == 0
    assert tuple(capsys.readouterr()) == ("yes\n", "")


def test_an_answer_that_ends_its_line_gets_no_second_line_break(fake: Any, capsys: Capture) -> None:
    fake.script = lambda messages: [Delta("yes"), last("\n")]
    assert main(["chat", "b.svb", "--prompt", "abc"]) == 0
    assert capsys.readouterr().out == "yes\n"


def test_a_schema_file_is_the_form_of_the_answer(fake: Any, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    (tmp_path / "s.json").write_text(json.dumps(schema))
    assert main(["chat", "b.svb", "--prompt", "abc", "--schema", str(tmp_path / "s.json")]) == 0
    form = asked(fake)[1]["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["schema"] == schema


def test_an_answer_that_had_to_be_whole_and_is_not_is_shown_and_exit_code_1(fake: Any, capsys: Capture) -> None:
    fake.script = lambda messages: [Delta('{"a'), Delta('":')]
    fake.error = IncompleteOutputError(CUT, '{"a": 1')
    assert main(["chat", "b.svb", "--prompt", "abc"]) == 1
    assert tuple(capsys.readouterr()) == ('{"a": 1\n', f"sottovoce: error: {CUT}\n")
    assert main(["chat", "b.svb", "--prompt", "abc", "--json"]) == 1
    captured = capsys.readouterr()
    data = json.loads(captured.out)
    assert (data["text"], data["finish_reason"], data["usage"]) == ('{"a": 1', "length", None) and CUT in captured.err


def test_an_answer_that_the_context_cuts_off_says_so_unless_a_limit_was_asked_for(fake: Any, capsys: Capture) -> None:
    fake.script = lambda messages: [last("so", "length")]
    assert main(["chat", "b.svb", "--prompt", "abc"]) == 0
    assert "cut off" in capsys.readouterr().err
    assert main(["chat", "b.svb", "--prompt", "abc", "--max-tokens", "1"]) == 0
    assert capsys.readouterr().err == ""


def test_ctrl_c_ends_with_what_was_said_and_exit_code_130(fake: Any, capsys: Capture) -> None:
    def interrupted(messages: Any) -> Any:
        yield Delta("once")
        os.kill(os.getpid(), signal.SIGINT)
        yield Delta(" upon")

    fake.script = interrupted
    assert main(["chat", "b.svb", "--prompt", "abc"]) == 130
    assert capsys.readouterr().out == "once\n"


def test_a_session_goes_on_and_is_kept(fake: Any, tmp_path: Path) -> None:
    path = tmp_path / "talk.session"
    assert main(["chat", "b.svb", "--prompt", "abc", "--session", str(path)]) == 0
    assert [message["role"] for message in fake.made[0].saved[path]] == ["user", "assistant"]
    assert main(["chat", "b.svb", "--prompt", "def", "--session", str(path), "--system", "Be brief."]) == 0
    kept = fake.made[1].saved[path]
    assert [message["content"] for message in kept] == ["Be brief.", "before", "yes", "def", "[suau] fed!"]


def test_a_session_to_which_nothing_was_added_is_left_as_it_is(fake: Any, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "talk.session"
    assert main(["chat", "b.svb", "--prompt", "refused", "--session", str(path)]) == 2
    assert fake.made[0].saved == {} and not path.exists()
    assert capsys.readouterr().err == "sottovoce: error: the message is refused\n"


def test_an_adapter_is_attached_before_anything_is_asked(fake: Any) -> None:
    assert main(["chat", "b.svb", "--prompt", "abc", "--adapter", "a.gguf"]) == 0
    assert fake.made[0].log == ["load", "detach", ("attach", "a.gguf"), "close"]


def test_raw_text_is_continued_as_it_is(fake: Any, capsys: Capture) -> None:
    assert main(["chat", "base.gguf", "--raw", "--prompt", "Once", "--seed", "1"]) == 0
    assert asked(fake) == (["Once"], {"seed": 1}) and capsys.readouterr().out == "[t] ecnO!\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "BUNDLE"),
        (["b.svb"], "there is nothing to answer"),
        (["b.svb", "--prompt", " "], "there is nothing to answer"),
        (["b.svb", "--prompt", "x", "--schema", "gone.json"], "--schema gone.json: No such file"),
        (["b.svb", "--prompt", "x", "--schema", "bad.json"], "--schema bad.json is no JSON"),
        (["b.svb", "--prompt", "x", "--raw", "--system", "y"], "--system has no place in it"),
        (["b.svb", "--prompt", "x", "--raw", "--session", "y"], "--session has no place in it"),
        (["b.svb", "--prompt", "x", "--adapter", "wrong.gguf"], "wrong.gguf was made for another model"),
        (["b.svb", "--prompt", "x", "--seed", "soon"], "invalid int value: 'soon'"),
        (["b.svb", "--prompt", "x", "--session", "nowhere"], "cannot be saved"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text("{")
    assert main(["chat", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1


def test_a_pipe_that_is_no_text_or_too_long_is_refused_before_anything_is_loaded(
    fake: Any, stdin: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin(b"ab\xff")
    assert main(["chat", "b.svb"]) == 2
    assert "no UTF-8 text: byte 2" in capsys.readouterr().err
    monkeypatch.setattr("sottovoce.cli.chat.MAX_INPUT", 4)
    stdin(b"12345")
    assert main(["chat", "b.svb"]) == 2
    assert "standard input has more than" in capsys.readouterr().err and fake.made == []


def test_help_of_the_command_brings_in_neither_numpy_nor_an_engine() -> None:
    import subprocess
    import sys

    script = (
        "import sys; from sottovoce.cli import main; main(['chat', '--help'])\n"
        "print(sorted({'numpy', 'onnxruntime', 'jinja2', 'llguidance'} & set(sys.modules)), file=sys.stderr)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == "[]\n"


@needs_llama
class TestWithAModel:
    """The whole way, through llama.cpp and back, with a tiny model of nonsense."""

    @pytest.fixture(autouse=True)
    def real(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from sottovoce.chat.chat import Chat

        monkeypatch.setitem(vars(sottovoce), "Chat", Chat)

    def test_the_same_seed_gives_the_same_answer_and_a_session_is_taken_up(
        self, tmp_path: Path, capsys: Capture
    ) -> None:
        model, session = tiny_gguf(tmp_path / "tiny.gguf"), tmp_path / "s"
        command = ["chat", str(model), "--prompt", "the hat", "--seed", "3", "--max-tokens", "12", "--threads", "1"]
        texts = []
        for more in ([], ["--session", str(session)]):
            assert main([*command, "--json", *more]) == 0
            texts.append(json.loads(capsys.readouterr().out)["text"])
        assert texts[0] == texts[1] and session.exists()
        assert main([*command, "--json", "--session", str(session)]) == 0
        assert json.loads(capsys.readouterr().out)["usage"]["cached_tokens"] > 12

    def test_a_schema_gives_json_or_says_that_it_is_cut_off(self, tmp_path: Path, capsys: Capture) -> None:
        model = tiny_gguf(tmp_path / "tiny.gguf")
        (tmp_path / "s.json").write_text('{"enum": ["yes", "no"]}')
        command = ["chat", str(model), "--prompt", "the hat", "--schema", str(tmp_path / "s.json"), "--threads", "1"]
        assert main(command) == 0
        assert json.loads(capsys.readouterr().out) in ("yes", "no")
        assert main([*command, "--max-tokens", "1"]) == 1
        captured = capsys.readouterr()
        assert captured.out.startswith('"') and "raise max_tokens" in captured.err

    def test_a_model_without_a_template_continues_text_and_says_so_where_it_is_asked(
        self, tmp_path: Path, capsys: Capture
    ) -> None:
        model = tiny_gguf(tmp_path / "base.gguf", template=None)
        command = ["chat", str(model), "--prompt", "the hat", "--max-tokens", "4", "--threads", "1"]
        assert main(command) == 2
        assert "sottovoce chat --raw" in capsys.readouterr().err
        assert main([*command, "--raw"]) == 0
        assert capsys.readouterr().out
