"""Finds llama.cpp's shared library in an installed binding, loads it, and refuses one whose layout is not known.

Two bindings bring one: llama-cpp-python (built from source) and xllamacpp (wheels for Linux and macOS, whose extension
module exports the C API; its Windows wheel does not). Neither package is imported. llama.cpp's log is kept from the
terminal; its errors are remembered, to be said in ours.
"""

import atexit
import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path

from sottovoce.engines.llama_cpp.layout import LogCallback, declare
from sottovoce.errors import EngineError, InputError, MissingExtraError
from sottovoce.manifest import printable

CHOICE = "SOTTOVOCE_LLAMA_CPP"  # the environment variable that chooses where both are installed
KNOWN = "xllamacpp 2026.10.11549 or llama-cpp-python 0.3.36"  # the layouts that are known
_ERROR = 4  # a level of ggml's log
_MAX_LINES, _MAX_LINE = 20, 300

_MISSING = (
    "a chat needs llama.cpp: pip install 'sottovoce[chat-wheel]' (ready made), or "
    "pip install 'sottovoce[chat]' (built here from source, about ten minutes)"
)


@dataclass(frozen=True, slots=True)
class Binding:
    """An installed package that brings llama.cpp: its distribution's name, version, and the shared library."""

    name: str
    version: str
    path: Path


class Library:
    """llama.cpp, loaded and checked; one a process. `functions` has every name of `layout.FUNCTIONS`."""

    def __init__(self, binding: Binding, functions: ctypes.CDLL, name: str) -> None:
        self.binding = binding
        self.functions = functions
        self.name = name
        self._errors: list[str] = []
        self._log = LogCallback(self._note)  # kept here: llama.cpp holds a bare pointer to it
        functions.llama_log_set(self._log, None)
        atexit.register(self._be_quiet)

    def forget_errors(self) -> None:
        self._errors.clear()

    def error(self, what: str) -> EngineError:
        """An EngineError that ends in the first thing llama.cpp complained of since `forget_errors`: what follows it
        tells of it again, in more general words."""
        why = f": {self._errors[0]}" if self._errors else ""
        return EngineError(f"{what}{why}")

    def _note(self, level: int, text: bytes | None, _: object) -> None:
        line = (text or b"").decode("utf-8", "replace").strip()
        if line and level == _ERROR and len(self._errors) < _MAX_LINES:
            self._errors.append(printable(line, _MAX_LINE))

    def _be_quiet(self) -> None:
        # What the library logs while the process ends must not call into an interpreter that is gone. `labs` takes the
        # level, ignores the rest and does nothing.
        if sys.platform != "win32":
            self.functions.llama_log_set(ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p), None)


def find_binding() -> Binding:
    """The installed binding to use: llama-cpp-python where both are, unless SOTTOVOCE_LLAMA_CPP names the other.

    Raises MissingExtraError where there is none, InputError for an unknown name.
    """
    wanted = os.environ.get(CHOICE)
    if wanted and wanted not in _FINDERS:
        raise InputError(f"{CHOICE}={printable(wanted)}; possible are {', '.join(_FINDERS)}")
    for name, find in _FINDERS.items():
        if wanted in (None, "", name) and (path := find()) is not None:
            return Binding(name, _version(name), path)
    if wanted:
        raise MissingExtraError(f"{CHOICE} asks for {wanted}, which is not installed. {_MISSING}")
    raise MissingExtraError(_MISSING)


def load_library() -> Library:
    """llama.cpp, loaded once a process. Raises MissingExtraError where none is installed, EngineError where it cannot
    be loaded or has a layout that is not known here."""
    return _load(find_binding())


@cache
def _load(binding: Binding) -> Library:
    what = f"{binding.name} {binding.version}"
    try:
        functions = ctypes.CDLL(str(binding.path))  # RTLD_LOCAL: its names must not meet another llama.cpp's
    except OSError as error:
        hint = "; install the system package libgomp1" if "libgomp" in str(error) else ""
        raise EngineError(f"{what} cannot be loaded: {printable(str(error), _MAX_LINE)}{hint}") from None
    if not hasattr(functions, "llama_decode"):
        raise EngineError(f"{what} does not export llama.cpp's C API on this system: pip install 'sottovoce[chat]'")
    if (differs := declare(functions)) is not None:
        raise EngineError(f"{what} holds a llama.cpp that this runtime does not know ({differs}): install {KNOWN}")
    library = Library(binding, functions, f"llama.cpp {_llama_version(functions)} ({what})")
    functions.llama_backend_init()
    _load_backends(functions, binding.path.parent)
    return library


def _llama_version(functions: ctypes.CDLL) -> str:
    if not hasattr(functions, "llama_version"):
        return "of unknown version"
    functions.llama_version.restype = ctypes.c_char_p
    version: bytes = functions.llama_version()
    return version.decode("utf-8", "replace")


def _load_backends(functions: ctypes.CDLL, folder: Path) -> None:
    """Where a binding is built with its backends apart, load them from beside the library."""
    if hasattr(functions, "ggml_backend_reg_count") and hasattr(functions, "ggml_backend_load_all_from_path"):
        functions.ggml_backend_reg_count.restype = ctypes.c_size_t
        if functions.ggml_backend_reg_count() == 0:
            functions.ggml_backend_load_all_from_path(ctypes.c_char_p(os.fsencode(folder)))


def _llama_cpp_python() -> Path | None:
    names = {"darwin": ("libllama.dylib", "libllama.so"), "win32": ("llama.dll", "libllama.dll")}
    return _beside("llama_cpp", [f"lib/{name}" for name in names.get(sys.platform, ("libllama.so",))])


def _xllamacpp() -> Path | None:
    return _beside("xllamacpp", ["xllamacpp.abi3.so", "xllamacpp.pyd"])


def _beside(module: str, names: list[str]) -> Path | None:
    """The first of `names` that lies in the module's folder; the module is not imported."""
    try:
        spec = util.find_spec(module)
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for name in names:
            if (path := Path(folder, name)).is_file():
                return path
    return None


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "of unknown version"


_FINDERS: dict[str, Callable[[], Path | None]] = {"llama-cpp-python": _llama_cpp_python, "xllamacpp": _xllamacpp}
