"""Ahead-of-time compilation and what it tells apart, on kernels made for it."""

import pytest
import torch
import triton
import triton.language as tl

from sottovoce_kernels.aot import (
    TARGETS,
    Artifact,
    Target,
    compile_kernel,
    recorded,
    tensor_core_instructions,
)
from sottovoce_kernels.backend import BackendError, interpreted

all_targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@triton.jit
def scale(x, y, factor, n, stride, BLOCK: tl.constexpr):
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + column, tl.load(x + column * stride, mask=column < n) * factor, mask=column < n)


@triton.jit
def product(x, w, y, K, BLOCK: tl.constexpr, STEP: tl.constexpr):
    row, step = tl.arange(0, BLOCK), tl.arange(0, STEP)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, K, STEP):
        left = tl.load(x + row[:, None] * K + start + step[None, :])
        right = tl.load(w + row[None, :] * K + start + step[:, None])
        total = tl.dot(left, right, total)
    tl.store(y + row[:, None] * BLOCK + row[None, :], total)


def compiled_product(target: Target, block: int, **options: int) -> Artifact:
    types = {"x": "*fp16", "w": "*fp16", "y": "*fp32", "K": "i32:16"}
    return compile_kernel(product, types, {"BLOCK": block, "STEP": 64}, target, **options)


@all_targets
def test_a_kernel_compiles_without_a_gpu_and_has_no_faults(target: Target) -> None:
    types = {"x": "*fp32", "y": "*fp32", "factor": "fp32", "n": "i32:16"}
    artifact = compile_kernel(scale, types, {"stride": 1, "BLOCK": 1024}, target)
    assert artifact.faults() == ()
    assert 0 < artifact.registers <= 255
    assert f".target {target.name}" in artifact.ptx
    assert "LDG.E.128" in artifact.sass
    assert tensor_core_instructions(artifact) == 0


@all_targets
def test_a_product_runs_on_tensor_cores(target: Target) -> None:
    assert tensor_core_instructions(compiled_product(target, 64)) > 0


def test_registers_that_do_not_fit_are_a_fault() -> None:
    artifact = compiled_product(TARGETS["sm_80"], 128, maxnreg=32)
    assert artifact.spills > 0
    assert "spills" in artifact.faults()[0]


def test_more_shared_memory_than_a_block_may_have_is_a_fault() -> None:
    big = compiled_product(TARGETS["sm_120"], 256, num_stages=3, num_warps=8)
    assert any(f"{big.shared_bytes} bytes of shared memory" in fault for fault in big.faults())


def test_a_recorded_launch_is_the_launch_that_was_asked_for() -> None:
    x = torch.arange(8.0)
    y = torch.full((8,), 7.0)
    with recorded() as launches:
        scale[lambda given: (triton.cdiv(given["n"], given["BLOCK"]),)](x, y, 2.0, 9, 1, BLOCK=8, num_warps=1)
    (launch,) = launches
    assert launch.grid == (2,)
    assert launch.signature == {"x": "*fp32", "y": "*fp32", "factor": "fp32", "n": "i32"}
    assert launch.constants == {"stride": 1, "BLOCK": 8}
    assert launch.options == {"num_warps": 1}
    assert y.tolist() == [7.0] * 8
    assert launch.compile(TARGETS["sm_90"]).kernel == "scale"


def test_recorded_types_follow_alignment_size_and_tensors_without_storage() -> None:
    with recorded() as launches:
        scale[(1,)](torch.empty(9, dtype=torch.bfloat16)[1:], torch.empty(9, device="meta"), 1.0, 2**33, 32, BLOCK=16)
    assert launches[0].signature == {"x": "*bf16:1", "y": "*fp32", "factor": "fp32", "n": "i64:16", "stride": "i32:16"}


def test_a_parameter_without_a_type_is_named() -> None:
    with pytest.raises(ValueError, match="no type for parameter factor of scale"):
        compile_kernel(scale, {"x": "*fp32", "y": "*fp32"}, {"BLOCK": 16}, TARGETS["sm_90"])


@pytest.mark.interpreted
def test_marked_tests_run_in_the_interpreter_on_cpu_tensors() -> None:
    x, y = torch.arange(12.0), torch.zeros(5)
    scale[(2,)](x, y, 3.0, 5, 2, BLOCK=4)
    assert interpreted()
    assert y.tolist() == [0.0, 6.0, 12.0, 18.0, 24.0]


@pytest.mark.interpreted
def test_the_interpreting_process_says_that_it_cannot_compile() -> None:
    with pytest.raises(BackendError, match="TRITON_INTERPRET"):
        compile_kernel(scale, {}, {}, TARGETS["sm_90"])


@pytest.mark.interpreted
@pytest.mark.xfail(strict=True, reason="shows that a failure over there is one here")
def test_a_failure_in_the_interpreting_process_is_a_failure_here() -> None:
    y = torch.zeros(5)
    scale[(1,)](torch.ones(5), y, 3.0, 5, 1, BLOCK=8)
    assert y.tolist() == [0.0] * 5
