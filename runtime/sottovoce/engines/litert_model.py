"""One `.tflite` graph of a bundle on LiteRT's interpreter: named inputs that keep their place, named results.

Knows the interpreter (`ai-edge-litert`, or the older `tflite-runtime` where a device has only that); knows no model.
Inputs lie in the interpreter's own memory: what is put there stays from run to run, until a size changes.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.bundle import Bundle
from sottovoce.errors import BundleError, EngineError, MissingExtraError
from sottovoce.memory import available_bytes

Array = NDArray[Any]
Shape = tuple[int, ...]

# Distribution, module; the first that is installed runs bundles.
CHOICES = (("ai-edge-litert", "ai_edge_litert"), ("tflite-runtime", "tflite_runtime"))
_MB = 1_000_000
HIDDEN = np.float32(-1e9)  # added to a score, takes its key out of the softmax
_MISSING = "this bundle needs LiteRT, which is not installed: pip install 'sottovoce[litert]'"


@dataclass(frozen=True, slots=True)
class Package:
    """What runs `.tflite` files here. One without `maintained` answers once a bundle's golden cases hold with it."""

    name: str
    module: str
    version: str

    @property
    def maintained(self) -> bool:
        return self.name == CHOICES[0][0]


def find_package() -> Package:
    """Raises MissingExtraError, which names the command that installs it, where there is none."""
    for name, module in CHOICES:
        try:
            return Package(name, module, metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    raise MissingExtraError(_MISSING)


def installed_version() -> str | None:
    """The version of what would run bundles here, None where nothing would."""
    try:
        return find_package().version
    except MissingExtraError:
        return None


def load_interpreter() -> Any:
    """The module of the interpreter. Raises MissingExtraError where there is none, EngineError where there is one that
    cannot be imported."""
    package = find_package()
    try:
        return import_module(f"{package.module}.interpreter")
    except ImportError as error:  # tflite-runtime under a NumPy that is too new for it
        raise EngineError(f"{package.name} {package.version} cannot be imported: {error}") from error


class LiteRtModel:
    """A graph, opened. `expected` are its inputs and results by name, with their shapes: -1 is any size.

    Raises BundleError for a damaged file or a graph that is another, EngineError where the interpreter refuses it.
    """

    def __init__(
        self,
        bundle: Bundle,
        name: str,
        threads: int,
        inputs: Mapping[str, Shape],
        results: Mapping[str, Shape],
    ) -> None:
        interpreter = load_interpreter()
        self._name = name
        source = _source(bundle, name)
        with _engine_errors(name):
            self._run = interpreter.Interpreter(**source, num_threads=threads)
        self._inputs = self._checked(self._run.get_input_details(), inputs)
        self._results = self._checked(self._run.get_output_details(), results)
        self._sizes: dict[str, Shape] = {}

    def _checked(self, found: Sequence[Mapping[str, Any]], expected: Mapping[str, Shape]) -> dict[str, int]:
        places = {}
        for detail in found:
            shape = tuple(int(size) for size in detail["shape_signature"])
            name = str(detail["name"])
            if name not in expected or shape != expected[name]:
                raise BundleError(f"{self._name}: {name:.80} has shape {shape}, expected {expected.get(name)}")
            places[name] = int(detail["index"])
        if missing := expected.keys() - places.keys():
            raise BundleError(f"{self._name}: the graph has no {min(missing)}")
        return places

    def resize(self, sizes: Mapping[str, Shape]) -> bool:
        """Make these inputs so large, and every result as large as that makes it; whether anything changed. If so, all
        inputs have to be put again."""
        if not self.differs(sizes):
            return False
        changed = {name: size for name, size in sizes.items() if self._sizes.get(name) != size}
        before, self._sizes = self._sizes, {}  # until it is done, nothing is known
        with _engine_errors(self._name):
            for name, size in sizes.items():
                if name in changed:
                    self._run.resize_tensor_input(self._inputs[name], size)
            with _without_notice():
                self._run.allocate_tensors()
        self._sizes = before | dict(sizes)
        return True

    def differs(self, sizes: Mapping[str, Shape]) -> bool:
        """Whether `resize` to these sizes would change anything."""
        return any(self._sizes.get(name) != size for name, size in sizes.items())

    def put(self, name: str, value: Array | int) -> None:
        """Fill an input."""
        self._run.tensor(self._inputs[name])()[...] = value

    def put_at(self, name: str, place: tuple[slice | int, ...], value: Array) -> None:
        """Fill a part of an input."""
        self._run.tensor(self._inputs[name])()[place] = value

    def part(self, name: str, place: tuple[slice | int, ...]) -> Array:
        """A copy of a part of an input."""
        found: Array = self._run.tensor(self._inputs[name])()[place].copy()
        return found

    def run(self) -> None:
        """Compute the results from what is in the inputs."""
        with _engine_errors(self._name):
            self._run.invoke()

    def result(self, name: str) -> Array:
        """A copy of a result of the last run."""
        found: Array = self._run.get_tensor(self._results[name])
        return found


def _source(bundle: Bundle, name: str) -> dict[str, Any]:
    """The file once its SHA-256 holds, before anything parses it: a path to map, or its bytes where it lies within a
    `.svb`, of which LiteRT maps no part.

    Raises EngineError where there is no memory for those bytes.
    """
    location = bundle.locate(name)
    bundle.check_file(name)
    if location.offset == 0 and location.size == location.path.stat().st_size:
        return {"model_path": str(location.path)}
    available = available_bytes()
    if available is not None and location.size > available:
        raise EngineError(
            f"{bundle.path}: {name} has {location.size // _MB} MB, and {available // _MB} MB are available; unpack the "
            f"bundle to a folder, from which it is mapped: python -m zipfile -e {bundle.path.name} FOLDER"
        )
    with location.path.open("rb") as file:
        file.seek(location.offset)
        return {"model_content": file.read(location.size)}


@contextmanager
def _without_notice() -> Iterator[None]:
    """Leaves out what LiteRT writes to stderr of its own accord when its fast kernels are first used: it is no news to
    a user. All else that is written meanwhile, by whomever, follows afterwards."""
    try:
        kept = os.dup(2)
    except OSError:  # a process without stderr
        yield
        return
    try:
        with tempfile.TemporaryFile() as written:
            os.dup2(written.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
                written.seek(0)
                for line in written:
                    if not line.startswith(b"INFO: "):
                        os.write(2, line)
    finally:
        os.close(kept)


@contextmanager
def _engine_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:  # what the interpreter's binding raises
        raise EngineError(f"LiteRT: {name}: {(str(error).splitlines() or ['it gave no reason'])[0]}") from error


def hidden_past(lengths: Sequence[int], capacity: int, tokens: int) -> NDArray[np.float32]:
    """What is added to the scores of the cache, (1, 1, rows * tokens, rows * capacity) float32: each of a row's tokens
    sees the first `lengths[row]` places of its own row. Of one row (1, 1, 1, capacity), which all its tokens share."""
    if len(lengths) == 1:
        bias = np.full((1, 1, 1, capacity), HIDDEN, np.float32)
        bias[..., : lengths[0]] = 0
        return bias
    bias = np.full((len(lengths), tokens, len(lengths), capacity), HIDDEN, np.float32)
    for row, length in enumerate(lengths):
        bias[row, :, row, :length] = 0
    return bias.reshape(1, 1, len(lengths) * tokens, len(lengths) * capacity)


def hidden_new(rows: int, tokens: int) -> NDArray[np.float32]:
    """The same for tokens of one run among each other, (1, 1, rows * tokens, rows * tokens): a token sees those of its
    row up to itself."""
    bias = np.full((rows, tokens, rows, tokens), HIDDEN, np.float32)
    seen = np.triu(np.full((tokens, tokens), HIDDEN, np.float32), 1)
    for row in range(rows):
        bias[row, :, row] = seen
    return bias.reshape(1, 1, rows * tokens, rows * tokens)
