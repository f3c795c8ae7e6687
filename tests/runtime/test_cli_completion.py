"""`sottovoce completion`: the scripts are sound, and bash completes what the parsers know."""

import shutil
import subprocess

import pytest

from sottovoce.cli import DEVICE_COMMANDS, main
from sottovoce.cli.completion import SHELLS, collect


def script(shell: str) -> str:
    return "\n".join(SHELLS[shell](collect())) + "\n"


def complete(*words: str) -> list[str]:
    """What bash offers for the last of the words."""
    line = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _sottovoce; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", script("bash") + ask], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("shell", list(SHELLS))
def test_the_scripts_name_every_command_and_its_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in [*DEVICE_COMMANDS, "beam-size", "translate"])


@pytest.mark.parametrize(("shell", "check"), [("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["--no-execute"])])
def test_the_shell_itself_finds_no_mistake_in_its_script(shell: str, check: list[str]) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    done = subprocess.run(
        [program, *check, "/dev/stdin"], input=script(shell), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
class TestBash:
    """What is offered."""

    def test_commands_first(self) -> None:
        assert complete("sottovoce", "tra") == ["transcribe"]
        assert set(DEVICE_COMMANDS) <= set(complete("sottovoce", ""))

    def test_options_of_the_command(self) -> None:
        assert complete("sottovoce", "transcribe", "--be") == ["--beam-size"]
        assert complete("sottovoce", "verify", "--be") == []
        assert complete("sottovoce", "chat", "--s") == ["--system", "--schema", "--session", "--seed", "--stop"]

    def test_the_values_that_an_option_may_have(self) -> None:
        assert complete("sottovoce", "transcribe", "b.svb", "--format", "") == [
            "txt",
            "json",
            "srt",
            "vtt",
            "tsv",
        ]

    def test_the_words_that_an_argument_may_be(self) -> None:
        assert complete("sottovoce", "completion", "z") == ["zsh"]

    def test_files_elsewhere(self) -> None:
        assert "/etc/passwd" in complete("sottovoce", "verify", "/etc/passw")


def test_an_unknown_shell_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "choose from" in capsys.readouterr().err
