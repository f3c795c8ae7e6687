"""What is installed is loaded once, in another process; what does not work there is missing, with what helps."""

import subprocess
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from sottovoce.doctor import parts
from sottovoce.doctor.parts import PARTS, Found, Part, look

# A process that plays a part: "good" works, "bad" does not, "deadly" ends it, "loud" prints something before.
SCRIPT = """
import json, os, signal, sys
for name in sys.argv[1:]:
    print(json.dumps({"part": name, "begun": True}), flush=True)
    if name == "deadly":
        os.kill(os.getpid(), signal.SIGILL)
    if name == "loud":
        print("welcome to loud 1.0", flush=True)
    answers = {"bad": {"problem": "no library", "install": "sudo apt install lib"}, "good": {"note": "well"}}
    print(json.dumps({"part": name, **answers.get(name, {})}), flush=True)
"""


def part(name: str, **changes: Any) -> Part:
    return Part(name, f"what {name} is for", name, f"pip install {name}", **changes)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Everything is installed as 1.0, but "absent"; the process is the one above. Gives the arguments of each."""
    started: list[list[str]] = []
    real = subprocess.run

    def run(command: list[str], **options: Any) -> Any:
        started.append(command[3:])
        return real([command[0], "-c", SCRIPT, *command[3:]], **options)

    def version(package: str) -> str:
        if package == "absent":
            raise PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(parts, "version", version)
    return started


def test_a_part_that_works_has_its_version_and_its_note(played: list[list[str]]) -> None:
    assert look([part("good"), part("loud")]) == [
        Found(part("good"), "1.0", note="well"),
        Found(part("loud"), "1.0"),
    ]
    assert played == [["good", "loud"]]


def test_a_part_that_is_there_and_does_not_work_is_missing_with_what_helps(played: list[list[str]]) -> None:
    (found,) = look([part("bad")])
    assert found.is_missing and (found.problem, found.install) == ("no library", "sudo apt install lib")


def test_a_part_that_is_not_there_is_not_tried(played: list[list[str]]) -> None:
    (found,) = look([part("absent")])
    assert (found.problem, found.install, played) == ("not installed", "pip install absent", [])


def test_a_part_whose_companion_is_not_there_is_missing(played: list[list[str]]) -> None:
    (found,) = look([part("good", beside=("absent",))])
    assert found.is_missing and found.install == "pip install good"


def test_a_part_that_takes_the_process_down_is_named_and_the_others_are_tried_all_the_same(
    played: list[list[str]],
) -> None:
    first, deadly, last = look([part("good"), part("deadly"), part("loud")])
    assert (first.version, last.version) == ("1.0", "1.0")
    assert deadly.is_missing and "signal 4" in (deadly.problem or "") and deadly.install == "pip install deadly"
    assert played == [["good", "deadly", "loud"], ["loud"]]


def test_a_process_that_never_begins_is_said_once_and_not_tried_for_ever(
    played: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_one_process", lambda names: iter(()))
    assert [found.problem for found in look([part("good"), part("bad")])] == [
        "the process that tries it does not start"
    ] * 2


def test_what_another_part_does_instead_is_not_missing(played: list[list[str]]) -> None:
    found = {one.part.name: one for one in look([part("absent", instead="good"), part("good")])}
    assert not found["absent"].is_missing and found["absent"].version is None


def test_a_part_for_another_system_is_not_looked_for(played: list[list[str]]) -> None:
    assert look([part("good", system="Plan 9")]) == [] and not played


def test_the_real_parts_are_told_apart_by_name_and_what_runs_bundles_is_an_engine() -> None:
    names = [one.name for one in PARTS]
    assert len(set(names)) == len(names)
    assert {one.name for one in PARTS if one.is_engine} >= {"onnxruntime", "llama.cpp"}


def test_the_engine_of_this_environment_works() -> None:
    (found,) = look([one for one in PARTS if one.name == "onnxruntime"])
    assert found.version and not found.is_missing
