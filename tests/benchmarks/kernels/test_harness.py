"""What the kernels' benchmarks count, draw and refuse."""

import json
from collections.abc import Iterator
from pathlib import Path

import harness
import pytest
import torch
from harness import Case, device_facts, forward_backward, measure, saved_bytes

CPU = torch.device("cpu")


def cases(device: torch.device) -> Iterator[Case]:
    x = torch.ones(1000, device=device, requires_grad=True)
    systems = {"ours": forward_backward(torch.exp, x), "other": forward_backward(lambda x: torch.exp(x) * 1.0, x)}
    yield Case("1000 values", systems, moved=8000, operations=1000, dtype=torch.float32)


@pytest.mark.parametrize(
    ("name", "sheet"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80 GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
    ],
)
def test_a_gpu_is_found_by_the_name_that_cuda_reports(name: str, sheet: str) -> None:
    found = device_facts(name)
    assert found is not None
    assert found.name == sheet


def test_a_gpu_without_a_data_sheet_has_no_roofline() -> None:
    assert device_facts("NVIDIA Something") is None
    (case,) = cases(CPU)
    result = {"cases": {case.name: measure(case, CPU, 2)}}
    assert "roofline" not in "\n".join(harness.table(result, None))
    assert "roofline" in "\n".join(harness.table(result, device_facts("NVIDIA H200")))


def test_the_floor_is_the_slower_of_memory_and_arithmetic() -> None:
    sheet = harness.Device("made up", bandwidth=1e9, peak={"float32": 1e12})
    assert sheet.floor(Case("", {}, 2_000_000, 1, torch.float32)) == pytest.approx(2e-3)
    assert sheet.floor(Case("", {}, 1, 3_000_000_000, torch.float32)) == pytest.approx(3e-3)


def test_what_is_kept_for_the_backward_is_counted_once_a_storage() -> None:
    x = torch.ones(1000, requires_grad=True)
    assert saved_bytes(forward_backward(torch.sin, x)) == 4000
    assert saved_bytes(forward_backward(lambda x: x.sin() + x.cos(), x)) == 4000
    assert saved_bytes(forward_backward(lambda x: x.sin().sin(), x)) == 8000


def test_a_step_gives_the_gradients_of_what_wants_one() -> None:
    x, y = torch.full((3,), 2.0, requires_grad=True), torch.full((3,), 5.0)
    (gradient,) = forward_backward(torch.mul, x, y)()  # type: ignore[misc]
    assert gradient.tolist() == [5.0] * 3


def test_results_of_operations_stand_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    for operation in ("second", "first"):
        assert harness.main(operation, cases, ["--device", "cpu", "--repetitions", "2"]) == 0
    whole = json.loads((tmp_path / "kernels-cpu.json").read_text())
    assert list(whole["operations"]) == ["first", "second"]
    page = (tmp_path / "kernels-cpu.md").read_text()
    assert page.index("## first") < page.index("## second")
    assert len(whole["operations"]["first"]["cases"]["1000 values"]["systems"]["other"]["seconds"]) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert harness.main("rms_norm", cases, []) == 2
    assert "needs a GPU" in capsys.readouterr().out
