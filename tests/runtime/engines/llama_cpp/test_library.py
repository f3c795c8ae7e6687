import ctypes
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from llama_case import needs_llama

from sottovoce.engines.llama_cpp import layout, library
from sottovoce.engines.llama_cpp.layout import CONTEXT_DEFAULTS, MODEL_DEFAULTS, Batch, ContextParams06, ModelParams
from sottovoce.errors import EngineError, InputError, MissingExtraError


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of the import path: nothing is installed but what a test puts there."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in ("llama_cpp", "xllamacpp"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delenv(library.CHOICE, raising=False)
    return tmp_path


def install(packages: Path, name: str) -> Path:
    """A package that must not be imported, with a library in it."""
    file = {"xllamacpp": "xllamacpp.abi3.so", "llama_cpp": "lib/libllama.so"}[name]
    path = packages / name / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a library")
    (packages / name / "__init__.py").write_text("raise AssertionError('imported')\n")
    return path


def test_where_no_binding_is_installed_both_ways_out_are_named(packages: Path) -> None:
    with pytest.raises(
        MissingExtraError, match=r"pip install 'sottovoce\[chat-wheel\]'.*pip install 'sottovoce\[chat\]'"
    ):
        library.find_binding()


@pytest.mark.skipif(sys.platform != "linux", reason="the library's name is Linux's")
def test_llama_cpp_python_comes_first_unless_the_other_is_asked_for(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = install(packages, "xllamacpp")
    assert library.find_binding().path == wheel
    built = install(packages, "llama_cpp")
    assert library.find_binding().path == built
    monkeypatch.setenv(library.CHOICE, "xllamacpp")
    assert library.find_binding().path == wheel
    monkeypatch.setenv(library.CHOICE, "llama-cpp-python")
    assert library.find_binding().path == built


def test_a_binding_that_is_asked_for_and_absent_or_unknown_is_named(
    packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(packages, "xllamacpp")
    monkeypatch.setenv(library.CHOICE, "llama-cpp-python")
    with pytest.raises(MissingExtraError, match="asks for llama-cpp-python, which is not installed"):
        library.find_binding()
    monkeypatch.setenv(library.CHOICE, "ollama")
    with pytest.raises(InputError, match="SOTTOVOCE_LLAMA_CPP=ollama; possible are llama-cpp-python, xllamacpp"):
        library.find_binding()


def test_a_file_that_is_no_library_is_an_error_with_the_package_and_version(packages: Path) -> None:
    install(packages, "xllamacpp")
    with pytest.raises(EngineError, match=r"xllamacpp .* cannot be loaded: "):
        library.load_library()


def test_a_library_without_the_c_api_is_refused(tmp_path: Path) -> None:
    libc = library.Binding("xllamacpp", "1", Path("libc.so.6"))
    if sys.platform == "linux":
        with pytest.raises(EngineError, match=r"xllamacpp 1 does not export llama\.cpp's C API"):
            library._load(libc)


class FakeLibrary:
    """Answers like llama.cpp, from defaults that a test may change; notes what was called."""

    def __init__(self, without: str = "", **defaults: Any) -> None:
        self.called: list[str] = []
        self._functions: dict[str, Any] = {}
        for name in layout.FUNCTIONS:
            if name != without:
                self._functions[name] = SimpleNamespace(restype=None, argtypes=None)
        for name, expected in (("model", MODEL_DEFAULTS), ("context", CONTEXT_DEFAULTS)):
            full = f"llama_{name}_default_params"
            self._functions[full] = self._filling(full, {**expected, **defaults})
        self._functions["llama_batch_init"] = lambda *_: self._batch()

    def _filling(self, name: str, values: dict[str, Any]) -> Any:
        def fill() -> ctypes.Structure:
            self.called.append(name)
            made = ModelParams() if name.startswith("llama_model") else ContextParams06()
            for field, value in values.items():
                if hasattr(made, field):
                    setattr(made, field, value)
            return made

        return fill

    def _batch(self) -> Batch:
        self.called.append("llama_batch_init")
        return Batch()

    def __getattr__(self, name: str) -> Any:
        try:
            return self._functions[name]
        except KeyError:
            raise AttributeError(name) from None


@pytest.mark.parametrize(
    ("fake", "message"),
    [
        (FakeLibrary(without="llama_state_seq_set_data"), "it has no llama_state_seq_set_data"),
        (FakeLibrary(load_mode=0), "the default of load_mode is 0, expected -1"),
        (FakeLibrary(use_extra_bufts=0xAB), "the default of use_extra_bufts is 171, expected 1"),
        (FakeLibrary(n_batch=512), "the default of n_batch is 512, expected 2048"),
        (FakeLibrary(yarn_beta_slow=1.0), "the default of yarn_beta_slow is 1.0, expected -1.0"),
        (FakeLibrary(swa_full=0), "the default of swa_full is 0, expected 1"),
        (FakeLibrary(), "a batch has another layout"),
    ],
)
def test_a_layout_that_is_not_known_is_named_and_nothing_that_takes_it_is_called(
    fake: FakeLibrary, message: str
) -> None:
    assert layout.declare(fake) == message  # type: ignore[arg-type]
    harmless = {"llama_model_default_params", "llama_context_default_params", "llama_batch_init"}
    assert set(fake.called) <= harmless


@needs_llama
def test_the_installed_library_is_loaded_once_and_without_its_package() -> None:
    script = """
import sys
from sottovoce.engines.llama_cpp.library import load_library
one, other = load_library(), load_library()
assert one is other
assert one.binding.version in one.name
assert not {"llama_cpp", "xllamacpp"} & sys.modules.keys()
print(one.name)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.startswith("llama.cpp ")


@needs_llama
def test_block_sizes_are_those_of_the_engine() -> None:
    from sottovoce.gguf import KINDS

    functions = library.load_library().functions
    functions.ggml_type_size.restype, functions.ggml_blck_size.restype = ctypes.c_size_t, ctypes.c_int64
    for number, (name, block, size) in KINDS.items():
        if (there := functions.ggml_blck_size(number)) != 0:
            assert (there, functions.ggml_type_size(number)) == (block, size), name
