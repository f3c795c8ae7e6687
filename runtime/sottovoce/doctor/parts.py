"""What is installed separately, and whether it works: each part is loaded for once, in a process of its own.

A package that is there may still not work: the system library that it calls is missing, or it was built for another
processor and takes the process down. Knows what a part is for and which command adds it; what loading one means is
`probe`'s.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from sottovoce.errors import InputError, MissingExtraError

NOT_INSTALLED = "not installed"  # a problem that the command to install it says well enough
TIMEOUT = 120  # seconds for all parts; a Raspberry Pi takes about ten


@dataclass(frozen=True, slots=True)
class Part:
    """Something that is installed separately: `package`, and the packages `beside` it. It is not missing where another
    part does `instead`. `is_engine` says that bundles are run by it; `system` is the only one that it is for."""

    name: str
    purpose: str
    package: str
    install: str
    beside: tuple[str, ...] = ()
    instead: str | None = None
    is_engine: bool = False
    system: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What was found of a part: its `version` where it works, else None, the `problem` and the command that helps.

    Neither version nor problem where the part is not needed, as another one is there instead. `note` is what to know
    of one that works.
    """

    part: Part
    version: str | None
    problem: str | None = None
    install: str | None = None
    note: str | None = None

    @property
    def is_missing(self) -> bool:
        return self.problem is not None


LLAMA_CPP, LITERT = "llama.cpp", "litert"
_FORMS = ("jinja2", "llguidance")  # prompts by the model's template; JSON by a schema, and tool calls
PARTS = (
    Part(
        "onnxruntime",
        "runs speech bundles, and chat bundles made for it",
        "onnxruntime",
        "pip install onnxruntime",
        is_engine=True,
    ),
    Part(
        LLAMA_CPP,
        "runs chat bundles and .gguf files",
        "xllamacpp",
        "pip install 'sottovoce[chat-wheel]'",
        is_engine=True,
    ),
    Part(
        LITERT,
        "runs bundles made for it",
        "ai-edge-litert",
        "pip install 'sottovoce[litert]'",
        is_engine=True,
    ),
    Part(
        "coreml",
        "runs bundles made for it",
        "coremltools",
        "pip install 'sottovoce[coreml]'",
        is_engine=True,
        system="Darwin",
    ),
    Part("audio", "recordings other than WAV", "soundfile", "pip install 'sottovoce[audio]'"),
    Part("mic", "the microphone, for listen", "sounddevice", "pip install 'sottovoce[mic]'"),
    Part(
        "chat-wheel",
        "chat with llama.cpp, ready made",
        "xllamacpp",
        "pip install 'sottovoce[chat-wheel]'",
        _FORMS,
        instead="chat",
    ),
    Part(
        "chat",
        "chat with llama.cpp, built here from source",
        "llama-cpp-python",
        "pip install 'sottovoce[chat]'",
        _FORMS,
        instead="chat-wheel",
    ),
    Part("chat-onnx", "chat with onnxruntime", "tokenizers", "pip install 'sottovoce[chat-onnx]'", _FORMS),
    Part(
        "chat-litert",
        "chat with litert",
        "tokenizers",
        "pip install 'sottovoce[chat-litert]'",
        ("ai-edge-litert", *_FORMS),
    ),
    Part("compiler", "make bundles, on a workstation", "sottovoce-compiler", "pip install sottovoce-compiler"),
)


def look(parts: Sequence[Part] = PARTS) -> list[Found]:
    """What of each part that is for this system is here and works. Takes seconds: what is installed is loaded, in
    another process."""
    parts = [part for part in parts if part.system in (None, platform.system())]
    installed = {part.name: _version(part) for part in parts}
    loaded = _probe([name for name, found in installed.items() if found is not None])
    return [_found(part, installed, loaded) for part in parts]


def _found(part: Part, installed: dict[str, str | None], loaded: dict[str, dict[str, str]]) -> Found:
    found = installed[part.name]
    if found is None:
        if part.instead is not None and installed.get(part.instead) is not None:
            return Found(part, None)
        return Found(part, None, NOT_INSTALLED, part.install)
    answer = loaded.get(part.name, {})
    if "problem" in answer:
        return Found(part, None, answer["problem"], answer.get("install") or part.install)
    return Found(part, found, note=answer.get("note"))


def _version(part: Part) -> str | None:
    """Of the part's package, None unless all that belongs to it is installed."""
    if part.name in _VERSIONS:
        return _VERSIONS[part.name]()
    try:
        found, *_ = [version(package) for package in (part.package, *part.beside)]
        return found
    except PackageNotFoundError:
        return None


def _llama_version() -> str | None:
    """Of the binding that brings llama.cpp, with its name."""
    from sottovoce.engines.llama_cpp.library import find_binding

    try:
        binding = find_binding()
    except (MissingExtraError, InputError):
        return None
    return f"{binding.name} {binding.version}"


def _litert_version() -> str | None:
    """Of the package that brings LiteRT, or its predecessor, with its name."""
    try:
        from sottovoce.engines.litert_model import find_package

        package = find_package()
    except (MissingExtraError, ImportError):  # without NumPy there is nothing to run it with
        return None
    return f"{package.name} {package.version}"


_VERSIONS: Mapping[str, Callable[[], str | None]] = {LLAMA_CPP: _llama_version, LITERT: _litert_version}


def _probe(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """The answers of `probe` by part. One that takes the process down is named by it, and the others go on in a new
    one."""
    answers: dict[str, dict[str, str]] = {}
    waiting = list(names)
    while waiting:
        before = len(waiting)
        for name, answer in _one_process(waiting):
            answers[name] = answer
            waiting.remove(name)
        if len(waiting) == before:
            # The process could not even begin: say so of all, rather than try for ever.
            answers |= {name: {"problem": "the process that tries it does not start"} for name in waiting}
            break
    return answers


def _one_process(names: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Answers for the first parts of `names`, up to one that ends the process."""
    command = [sys.executable, "-m", "sottovoce.doctor.probe", *names]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(), timeout=TIMEOUT, check=False)
        output, ended = done.stdout, f"exit code {done.returncode}"
        if done.returncode < 0:
            ended = f"signal {-done.returncode}"
    except OSError:  # no process can be started here at all
        return
    except subprocess.TimeoutExpired as late:
        raw = late.stdout or b""
        output, ended = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw, f"no answer in {TIMEOUT} s"
    begun: str | None = None
    for line in output.splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            continue  # what a library prints
        if not isinstance(message, dict):
            continue
        name = message.pop("part", None)
        if name in names and message.pop("begun", False):
            begun = name
        elif name in names:
            begun = None
            yield name, {key: str(value) for key, value in message.items()}
    if begun is not None:
        yield begun, {"problem": f"it ends the process that loads it ({ended})"}


def _environment() -> dict[str, str]:
    """This process's, with the places from which it imports."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
