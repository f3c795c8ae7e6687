import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "raspberry-pi" / "watch_folder.py"


def watch(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, SCRIPT, *arguments, "--once"]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False)


@pytest.mark.weights
def test_a_recording_gets_its_text_and_a_bad_one_is_named_without_losing_the_others(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    from sottovoce_compiler.report.builtin import builtin_set

    talk = next(clip.file for clip in builtin_set().clips if clip.name.startswith("two-cities-24"))
    shutil.copy(talk, tmp_path / "talk.wav")
    (tmp_path / "bad.wav").write_text("no sound")
    done = watch(tiny_bundle, tmp_path)
    assert done.returncode == 1 and "bad.wav" in done.stderr and "talk.wav: 4 s of en" in done.stdout
    assert "heaven" in (tmp_path / "talk.txt").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.wav", "talk.txt", "talk.wav"]
    (tmp_path / "bad.wav").unlink()
    again = watch(tiny_bundle, tmp_path)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")


def test_a_bundle_that_is_not_there_ends_it_with_one_line(tmp_path: Path) -> None:
    done = watch(tmp_path / "nowhere.svb", tmp_path)
    assert done.returncode == 2 and done.stderr.strip().endswith("nowhere.svb: no such bundle")
    assert len(done.stderr.splitlines()) == 1
