"""The unit files: systemd finds nothing wrong with them, and what they start takes these arguments."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import assistant
import captions
import pytest
from tests.examples.raspberry_pi.room_case import EXAMPLE

UNITS = sorted(EXAMPLE.glob("*.service"))
PARSERS = {"captions.py": captions.parse, "assistant.py": assistant.parse}
HOME = "/home/pi"


def started(unit: Path) -> list[str]:
    (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), flags=re.MULTILINE)
    return shlex.split(line)


def test_there_are_services() -> None:
    assert {unit.stem for unit in UNITS} == {"sottovoce-assistant", "sottovoce-captions", "sottovoce-watch"}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_finds_nothing_wrong(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze, of the Debian package systemd")
    # It looks whether what is started is there.
    python = tmp_path / "sottovoce" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/sh")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace(HOME, str(tmp_path)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, timeout=60, check=False
    )
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, said) == (0, [])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_what_is_started_is_a_script_of_the_example_that_takes_these_arguments(unit: Path) -> None:
    python, script, *arguments = started(unit)
    assert python == f"{HOME}/sottovoce/bin/python" and (EXAMPLE / Path(script).name).is_file()
    assert script == f"{HOME}/raspberry-pi/{Path(script).name}"
    if (parse := PARSERS.get(Path(script).name)) is not None:
        parse(arguments)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_every_service_has_a_limit_on_its_memory_and_no_network(unit: Path) -> None:
    text = unit.read_text()
    assert re.search(r"^MemoryMax=\d+M$", text, flags=re.MULTILINE)
    assert "\nPrivateNetwork=yes\n" in text and "\nNoNewPrivileges=yes\n" in text
