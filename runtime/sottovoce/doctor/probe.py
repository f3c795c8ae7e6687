"""Loads parts, one after the other, and says of each what became of it: run as a process, by `parts`.

Two JSON lines a part on standard output: that it begins, so that a part which takes the process down is known by its
name; and what was found. Knows what loading each part means, and which system library it needs.
"""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from sottovoce.errors import MissingExtraError, SottovoceError

MAX_REASON = 200  # characters


class _Unusable(Exception):
    """A part that does not work; `install` is the command that helps, or None."""

    def __init__(self, problem: str, install: str | None = None) -> None:
        super().__init__(problem)
        self.install = install


def _onnxruntime() -> str | None:
    from onnxruntime import get_available_providers

    if "CPUExecutionProvider" not in get_available_providers():
        raise _Unusable("it was built without its CPU provider", "pip install --force-reinstall onnxruntime")
    return None


def _llama_cpp() -> str | None:
    from sottovoce.engines.llama_cpp.library import load_library

    return load_library().name


def _litert() -> str | None:
    from sottovoce.engines.litert_model import find_package

    package = find_package()
    import_module(f"{package.module}.interpreter")
    return None if package.maintained else f"{package.name} is no longer maintained: pip install 'sottovoce[litert]'"


def _audio() -> str | None:
    try:
        import soundfile  # noqa: F401
    except OSError:
        raise _Unusable("soundfile finds no libsndfile", _apt("libsndfile1")) from None
    return None


def _microphone() -> str | None:
    from sottovoce.streaming.sources.microphone import input_devices

    try:
        devices = input_devices()
    except MissingExtraError as error:  # the package is there: it is the library that is not
        raise _Unusable(str(error).partition(";")[0], _apt("libportaudio2")) from None
    chosen = next((one.name for one in devices if one.is_default), devices[0].name if devices else None)
    return f"hears {chosen}" if chosen else "no microphone is connected"


def _modules(*names: str) -> Callable[[], str | None]:
    def load() -> None:
        for name in names:
            import_module(name)

    return load


PROBES: Mapping[str, Callable[[], str | None]] = {
    "onnxruntime": _onnxruntime,
    "llama.cpp": _llama_cpp,
    "litert": _litert,
    "coreml": _modules("coremltools"),
    "audio": _audio,
    "mic": _microphone,
    "chat-wheel": _modules("jinja2", "llguidance"),
    "chat": _modules("jinja2", "llguidance"),
    "chat-onnx": _modules("tokenizers", "jinja2", "llguidance"),
    "chat-litert": _modules("tokenizers", "jinja2", "llguidance"),
}  # a part that is not here is not tried: the compiler takes seconds to import, and a device does not need it


def probe(name: str) -> dict[str, str | None]:
    """What became of loading a part: a `note`, or a `problem` and what to `install`."""
    try:
        return {"note": PROBES[name]() if name in PROBES else None}
    except _Unusable as error:
        return {"problem": str(error), "install": error.install}
    except SottovoceError as error:
        return {"problem": _short(error)}
    except Exception as error:  # whatever a package raises while it is imported is the answer
        return {"problem": f"it cannot be loaded: {_short(error)}"}


def main(names: list[str]) -> None:
    """Says what became of each of `names`."""
    for name in names:
        _say({"part": name, "begun": True})
        _say({"part": name, **{key: value for key, value in probe(name).items() if value is not None}})


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _short(error: BaseException) -> str:
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line[:MAX_REASON]


def _apt(package: str) -> str | None:
    """How a system library is installed where that is known."""
    if sys.platform == "linux" and shutil.which("apt-get"):
        return f"sudo apt install {package}"
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
