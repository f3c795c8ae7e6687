"""Every way of storing a matrix: what comes back from the saved package is the matrix, as near as its bits allow."""

from pathlib import Path

import coremltools as ct
import numpy as np
import pytest

from sottovoce_compiler.lowerings.coreml.package import save
from sottovoce_compiler.lowerings.coreml.program import Constants, function, program, specification, tensor
from sottovoce_compiler.lowerings.coreml.stand_in import runners
from sottovoce_compiler.lowerings.coreml.weights import Blocks, Half, Int8Rows, Palette, Stored, half, weighed

# The way, the system it needs, and the share of the spread that may be lost: about its quantizer's for a normal.
WAYS: dict[str, tuple[Stored, str, float]] = {
    "fp16": (Half(), "iOS17", 0.0005),
    "int8": (Int8Rows(), "iOS18", 0.01),
    "int8, before iOS 18": (Int8Rows(plain=True), "iOS17", 0.01),
    "6 bits, one table": (Palette(6), "iOS18", 0.04),
    "6 bits, one table, before iOS 18": (Palette(6, packed=True), "iOS17", 0.04),
    "4 bits, a table for 16 rows": (Palette(4, grouped=True), "iOS18", 0.11),
    "4 bits in blocks": (Blocks(4, 32), "iOS18", 0.09),
    "8 bits in blocks": (Blocks(8, 32), "iOS18", 0.01),
}


def back(way: Stored, system: str, weight: np.ndarray, ones: int, folder: Path) -> np.ndarray:
    """The matrix as the package has it: multiplied with one."""
    from coremltools.converters.mil import Builder as mb

    made = function(
        system,
        {"x": tensor([1])},
        lambda x: {"y": mb.mul(x=Constants().matrix("w", weight, way, ones), y=x)},
    )
    save(program({"main": made}), folder / "W.mlpackage", specification(system), {})
    found = runners(folder / "W.mlpackage")["main"].run({"x": np.ones(1, np.float16)})["y"]
    assert found.shape == (*weight.shape, *[1] * ones)
    return found.reshape(weight.shape).astype(np.float32)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("ones", [0, 2])
def test_the_matrix_comes_back(name: str, ones: int, tmp_path: Path) -> None:
    way, system, allowed = WAYS[name]
    weight = np.random.default_rng(0).normal(0, 0.1, (48, 96)).astype(np.float32)
    found = back(way, system, weight, ones, tmp_path)
    assert np.sqrt(np.mean((found - weight) ** 2)) < allowed * 0.1


@pytest.mark.parametrize("name", ["4 bits, a table for 16 rows", "4 bits in blocks"])
def test_columns_that_count_more_lose_less(name: str, tmp_path: Path) -> None:
    way, system, _ = WAYS[name]
    weight = np.random.default_rng(1).normal(0, 0.1, (48, 96)).astype(np.float32)
    importance = np.ones(96, np.float32)
    importance[::4] = 50
    for folder in ("plain", "weighed"):
        (tmp_path / folder).mkdir()
    plain = back(way, system, weight, 0, tmp_path / "plain") - weight
    better = back(weighed(way, importance), system, weight, 0, tmp_path / "weighed") - weight
    assert np.mean(better[:, ::4] ** 2) < np.mean(plain[:, ::4] ** 2)


def test_the_package_is_one_that_core_mls_own_library_takes(tmp_path: Path) -> None:
    from coremltools.libmodelpackage import ModelPackage

    back(Blocks(4, 32), "iOS18", np.ones((4, 32), np.float32), 0, tmp_path)
    assert ModelPackage.isValid(str(tmp_path / "W.mlpackage"))
    assert ct.models.utils.load_spec(str(tmp_path / "W.mlpackage")).specificationVersion == 9


def test_a_value_beyond_float16_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="embed holds 70000"):
        half("embed", np.array([70000.0], np.float32))
    with pytest.raises(ValueError, match="embed holds nan"):
        half("embed", np.array([np.nan], np.float32))
