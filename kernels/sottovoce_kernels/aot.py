"""Compiles Triton kernels ahead of time, on a machine without a GPU, and reads what came out.

What a GPU would refuse or run slowly shows here: registers that spilled to memory, more shared memory than a block may
have, a product that missed the tensor cores. `recorded` notes a launcher's launches instead of running them, so that
what is compiled is what would have been launched:

    with recorded() as launches:
        kernel.forward(torch.empty(64, 576, dtype=torch.bfloat16, device="meta"), weight, 1e-5)
    assert [launch.compile(target).faults() for launch in launches] == [()]

Needs Triton, whose wheel brings ptxas and the disassembler, and a process that does not interpret its kernels. Knows no
operation, and nothing about speed.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from sottovoce_kernels.backend import BackendError

ALIGNMENT = 16  # bytes of a pointer, or a factor of an integer, on which Triton specializes

# Types of pointers by the last part of torch's name of the element.
POINTERS = {
    "float64": "*fp64",
    "float32": "*fp32",
    "float16": "*fp16",
    "bfloat16": "*bf16",
    "float8_e4m3fn": "*fp8e4nv",
    "float8_e5m2": "*fp8e5",
    "int64": "*i64",
    "int32": "*i32",
    "int16": "*i16",
    "int8": "*i8",
    "uint8": "*u8",
    "bool": "*i1",
}

TENSOR_CORE = re.compile(r"\b(?:HMMA|IMMA|QMMA|OMMA|BMMA|HGMMA|IGMMA|QGMMA)\b")


@dataclass(frozen=True, slots=True)
class Target:
    """A GPU to compile for: compute capability times ten, and bytes of shared memory that one block may have (CUDA C++
    Programming Guide, technical specifications per compute capability)."""

    name: str
    capability: int
    shared_limit: int


TARGETS = {
    target.name: target
    for target in (
        Target("sm_80", 80, 163 * 1024),  # A100
        Target("sm_90", 90, 227 * 1024),  # H100, H200
        Target("sm_120", 120, 99 * 1024),  # GeForce RTX 50; the RTX 30 and 40 have the same limit
    )
}


@dataclass(frozen=True, slots=True)
class Artifact:
    """A compiled kernel. `registers` a thread; `spills`: bytes of local memory a thread, which is where registers go
    that do not fit; `shared_bytes`: shared memory a block."""

    kernel: str
    target: Target
    registers: int
    spills: int
    shared_bytes: int
    ptx: str
    cubin: bytes

    @property
    def sass(self) -> str:
        """The machine code as the disassembler prints it; takes a third of a second when asked for the first time."""
        return _disassembled(self.cubin)

    def faults(self) -> tuple[str, ...]:
        """What no kernel of ours may have, a sentence each: spilled registers, too much shared memory."""
        found = []
        if self.spills:
            found.append(f"{self.kernel} on {self.target.name} spills {self.spills} bytes a thread")
        if self.shared_bytes > self.target.shared_limit:
            found.append(
                f"{self.kernel} on {self.target.name} takes {self.shared_bytes} bytes of shared memory, "
                f"a block may have {self.target.shared_limit}"
            )
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch as a launcher asked for it. `signature`: the type of each parameter as `compile_kernel` takes it;
    `options`: num_warps and what else goes to the compiler."""

    kernel: Any
    grid: tuple[int, ...]
    signature: Mapping[str, str]
    constants: Mapping[str, object]
    options: Mapping[str, Any]

    def compile(self, target: Target) -> Artifact:
        """Compiles it for `target`."""
        return compile_kernel(self.kernel, self.signature, self.constants, target, **self.options)


def compile_kernel(
    kernel: Any,
    signature: Mapping[str, str],
    constants: Mapping[str, object],
    target: Target,
    *,
    num_warps: int = 4,
    num_stages: int = 3,
    **options: Any,
) -> Artifact:
    """Compiles the `@triton.jit` function `kernel` for `target`.

    `signature`: Triton's type of every parameter that is not in `constants`: "*bf16", "i32", "fp32". Pointers count as
    aligned, as torch allocates them; an integer that is a multiple of 16 is "i32:16".

    Raises BackendError where the process interprets kernels (TRITON_INTERPRET=1), ValueError for a parameter without a
    type, and Triton's own errors for a kernel that does not compile.
    """
    if not isinstance(kernel, JITFunction):
        raise BackendError(f"{kernel} is interpreted and cannot be compiled: start Python without TRITON_INTERPRET")
    if missing := [name for name in kernel.arg_names if name not in signature and name not in constants]:
        raise ValueError(f"no type for parameter {missing[0]} of {kernel.__name__}; it is in neither mapping")
    types = {name: "constexpr" if name in constants else signature[name].partition(":")[0] for name in kernel.arg_names}
    aligned = [name for name in kernel.arg_names if name not in constants and _is_aligned(signature[name])]
    attributes = {(kernel.arg_names.index(name),): [["tt.divisibility", ALIGNMENT]] for name in aligned}
    compiled = triton.compile(
        ASTSource(kernel, types, dict(constants), attributes),
        target=GPUTarget("cuda", target.capability, 32),
        options={"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True, **options},
    )
    cubin, ptx = compiled.asm["cubin"], compiled.asm["ptx"]
    registers, spills = _resources(cubin)
    return Artifact(kernel.__name__, target, registers, spills, compiled.metadata.shared, ptx, cubin)


def tensor_core_instructions(artifact: Artifact) -> int:
    """How many instructions of the machine code run on tensor cores (HMMA, IMMA, QMMA and Hopper's wgmma forms)."""
    return len(TENSOR_CORE.findall(artifact.sass))


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """While it is open, kernels are not run: each launch is appended to the list. Tensors may be on any device, also
    "meta"; what the kernels would have written stays unwritten."""
    launches: list[Launch] = []

    def note(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        launches.append(_launch(kernel, grid, args, kwargs))

    with patch.object(JITFunction, "run", note):
        yield launches


def _launch(kernel: Any, grid: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Launch:
    given = dict(zip(kernel.arg_names, args, strict=False)) | dict(kwargs)
    defaults = {parameter.name: parameter.default for parameter in kernel.params if parameter.has_default}
    values = {name: given.get(name, defaults.get(name)) for name in kernel.arg_names}
    fixed = {parameter.name for parameter in kernel.params if parameter.is_constexpr}
    constants = {name: value for name, value in values.items() if name in fixed or _is_folded(value)}
    signature = {name: _type_of(value) for name, value in values.items() if name not in constants}
    options = {name: value for name, value in kwargs.items() if name not in values}
    size = grid(values) if callable(grid) else grid
    return Launch(kernel, tuple(size), signature, constants, options)


def _is_folded(value: object) -> bool:
    """Whether Triton makes a constant of an argument because of its value: no tensor, and the stride or size of one."""
    return value is None or (type(value) is int and value == 1)


def _type_of(value: Any) -> str:
    """The type that Triton gives this argument at a launch, in the notation of `compile_kernel`."""
    if isinstance(value, bool):
        return "u1"
    if isinstance(value, int):
        width = "i32" if -(2**31) <= value < 2**31 else "i64"
        return f"{width}:{ALIGNMENT}" if value % ALIGNMENT == 0 else width
    if isinstance(value, float):
        return "fp32"
    pointer = POINTERS[str(value.dtype).removeprefix("torch.")]
    return pointer if value.data_ptr() % ALIGNMENT == 0 else f"{pointer}:1"


def _is_aligned(kind: str) -> bool:
    base, _, factor = kind.partition(":")
    return factor == str(ALIGNMENT) or (base.startswith("*") and not factor)


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of local memory of a thread."""
    text = _tool("cuobjdump", "-res-usage", cubin)
    found = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    return found["REG"], found["STACK"] + found["LOCAL"]


@lru_cache(maxsize=64)
def _disassembled(cubin: bytes) -> str:
    return _tool("nvdisasm", "-c", cubin)


def _tool(name: str, option: str, cubin: bytes) -> str:
    """What a tool of Triton's wheel prints about a cubin. Raises BackendError where it fails."""
    path = cast(str, getattr(triton.knobs.nvidia, name).path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(cubin)
        done = subprocess.run([path, option, str(file)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BackendError(f"{name} failed on a compiled kernel: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout
