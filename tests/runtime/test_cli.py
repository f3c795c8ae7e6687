"""The command's frame: which command is called, what help says, and what each kind of failure looks like."""

import argparse
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest

import sottovoce
from sottovoce import cli
from sottovoce.errors import BundleError, EngineError, InputError, MissingExtraError

DEVICE = list(cli.DEVICE_COMMANDS)


def command(run: Callable[[argparse.Namespace], int]) -> Any:
    """A command module that does one thing."""
    return SimpleNamespace(EXAMPLE="  sottovoce thing x\n", add_arguments=lambda parser: None, run=run)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], int]:
    """Runs `sottovoce thing`, where thing is the function given."""

    def call(action: Any) -> int:
        monkeypatch.setattr(cli, "load_command", lambda name: command(action))
        return cli.main(["thing"])

    return call


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


def shell(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "sottovoce", *arguments]
    return subprocess.run(command, text=True, env=environment, check=False, **{"capture_output": True} | options)


def test_help_lists_every_command_of_the_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in DEVICE)


def test_no_command_at_all_is_wrong_usage_and_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "transcribe" in captured.err


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"sottovoce {sottovoce.__version__}\n"


def test_help_and_import_bring_in_neither_numpy_nor_an_engine_nor_a_command() -> None:
    script = (
        "import sys, sottovoce, sottovoce.cli; sottovoce.cli.main(['--help'])\n"
        "heavy = {'numpy', 'onnxruntime', 'torch', 'soundfile', 'sottovoce.cli.transcribe'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("name", DEVICE)
def test_every_commands_help_shows_an_example_that_calls_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: sottovoce {name}" in out and f"example:\n  sottovoce {name}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trnscribe"], "no command 'trnscribe'; did you mean transcribe?"),
        (["zzz"], "no command 'zzz'; see sottovoce --help"),
        (["--verbose"], "no option '--verbose' before a command; see sottovoce --help"),
        (["verify"], "the following arguments are required: BUNDLE; see sottovoce verify --help"),
        (["verify", "a", "--nope"], "unrecognized arguments: --nope; see sottovoce verify --help"),
        (["doctor", "--js"], "unrecognized arguments: --js; see sottovoce doctor --help"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == f"sottovoce: error: {message}\n"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("no language 'xx'"), 2, "no language 'xx'"),
        (BundleError("x.svb: damaged"), 2, "x.svb: damaged"),
        (MissingExtraError("pip install it"), 2, "pip install it"),
        (EngineError("it broke off"), 1, "it broke off"),
        (OSError(28, "No space left on device", "out/x.srt"), 1, "out/x.srt: No space left on device"),
        (OSError(5, "Input/output error"), 1, "Input/output error"),
        (MemoryError(), 1, "out of memory; a smaller model, or --batch-size 1, needs less"),
        (KeyError("x"), 1, "unexpected KeyError: 'x'; SOTTOVOCE_DEBUG=1 shows where"),
    ],
)
def test_each_failure_is_one_line_with_its_exit_code(
    error: Exception, code: int, message: str, calls: Callable[[Any], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert calls(raising(error)) == code
    captured = capsys.readouterr()
    assert captured.err == f"sottovoce: error: {message}\n" and captured.out == ""


def test_the_traceback_is_there_for_those_who_ask(
    calls: Callable[[Any], int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOTTOVOCE_DEBUG", "1")
    assert calls(raising(InputError("no"))) == 2
    assert "Traceback" in (err := capsys.readouterr().err) and err.endswith("sottovoce: error: no\n")


def test_an_interrupt_is_quiet_and_130(calls: Callable[[Any], int], capsys: pytest.CaptureFixture[str]) -> None:
    assert calls(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == ""


def test_a_warning_is_one_line_without_source_code(
    calls: Callable[[Any], int], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: argparse.Namespace) -> int:
        warnings.warn("unknown key 'colour'", stacklevel=1)
        return 0

    assert calls(run) == 0
    assert capsys.readouterr().err == "sottovoce: warning: unknown key 'colour'\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    """As in `sottovoce completion bash | head -1`."""
    read, write = os.pipe()
    os.close(read)
    done = shell("completion", "bash", capture_output=False, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_one_line_and_exit_code_1() -> None:
    with open("/dev/full", "w") as full:
        done = shell("--help", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, "sottovoce: error: No space left on device\n")


class TestHostCommands:
    """Commands that the compiler adds through entry points."""

    @pytest.fixture(autouse=True)
    def none_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cli, "host_entry_points", dict)

    @pytest.mark.parametrize("name", list(cli.HOST_COMMANDS))
    def test_one_that_is_not_installed_says_what_to_install(
        self, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main([name, "x"]) == 2
        assert capsys.readouterr().err.endswith("pip install sottovoce-compiler\n")

    def test_it_is_not_in_the_help_until_it_is_installed(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cli.main(["--help"])
        assert "compile" not in capsys.readouterr().out
        point = EntryPoint("compile", "test_cli_stub", cli.HOST_GROUP)
        monkeypatch.setattr(cli, "host_entry_points", lambda: {"compile": point})
        cli.main(["--help"])
        assert "\n  compile " in capsys.readouterr().out

    def test_an_installed_one_is_called(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "test_cli_stub", command(lambda args: 7))
        point = EntryPoint("compile", "test_cli_stub", cli.HOST_GROUP)
        monkeypatch.setattr(cli, "host_entry_points", lambda: {"compile": point})
        assert cli.main(["compile"]) == 7


def test_a_public_name_is_loaded_when_first_used_and_others_are_attribute_errors() -> None:
    assert sottovoce.AudioError.__module__ == "sottovoce.errors"
    assert {"Transcriber", "Segment", "__version__"} <= set(dir(sottovoce))
    with pytest.raises(AttributeError, match="Chatter"):
        _ = sottovoce.Chatter
