"""Packages that are damaged, foreign or beyond the evaluator are refused by name, before anything is computed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb

from sottovoce_compiler.lowerings.coreml.evaluator.errors import PackageError, UnknownOperationError
from sottovoce_compiler.lowerings.coreml.evaluator.reading import read_package
from sottovoce_compiler.lowerings.coreml.package import DATA, save
from sottovoce_compiler.lowerings.coreml.program import function, program, specification, tensor
from sottovoce_compiler.lowerings.coreml.protobuf import modelproto
from sottovoce_compiler.lowerings.coreml.stand_in import runners

WEIGHT = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float16)


def made(folder: Path, of: Callable[[Any], Any] = lambda x: mb.linear(x=x, weight=WEIGHT)) -> Path:
    one = function("iOS17", {"x": tensor([2, 8])}, lambda x: {"y": of(x)})
    package = folder / "One.mlpackage"
    save(program({"main": one}), package, specification("iOS17"), {"description": "one", "a.key": "a value"})
    return package


def edited(package: Path, change: Callable[[Any], None]) -> Path:
    """The package with its specification changed."""
    file = package / DATA / "model.mlmodel"
    model = modelproto().Model()
    model.ParseFromString(file.read_bytes())
    change(model)
    file.write_bytes(model.SerializeToString())
    return package


def operations(model: Any) -> Any:
    one = model.mlProgram.functions["main"]
    return one.block_specializations[one.opset].operations


def test_what_was_saved_is_what_is_read(tmp_path: Path) -> None:
    package = read_package(made(tmp_path))
    main = package.functions["main"]
    assert (package.default, package.specification, package.metadata["a.key"]) == ("main", 8, "a value")
    assert [(one.name, one.kind, one.shape) for one in main.inputs] == [("x", "FLOAT16", (2, 8))]
    assert main.outputs == ("y",)
    assert package.kinds() == {"const", "linear", "identity"}


def test_an_operation_that_is_not_known_is_named(tmp_path: Path) -> None:
    package = made(tmp_path, lambda x: mb.erf(x=mb.floor(x=x)))
    with pytest.raises(UnknownOperationError, match="erf, floor"):
        runners(package)


def test_an_input_of_an_operation_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    package = made(tmp_path, lambda x: mb.upsample_nearest_neighbor(x=mb.reshape(x=x, shape=[1, 1, 2, 8])))

    def renamed(model: Any) -> None:
        next(one for one in operations(model) if one.type.startswith("upsample")).type = "silu"

    with pytest.raises(PackageError, match="operation silu of"):
        runners(edited(package, renamed))["main"].run({"x": np.ones((2, 8), np.float16)})


def test_a_value_of_another_shape_than_the_program_says_is_an_error(tmp_path: Path) -> None:
    def wider(model: Any) -> None:
        output = next(one for one in operations(model) if one.type == "linear").outputs[0]
        output.type.tensorType.dimensions[1].constant.size = 5

    with pytest.raises(PackageError, match=r"shape \(2, 4\), by the program \(2, 5\)"):
        runners(edited(made(tmp_path), wider))["main"].run({"x": np.ones((2, 8), np.float16)})


def test_a_variable_that_no_memory_holds_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    def vast(model: Any) -> None:
        model.mlProgram.functions["main"].inputs[0].type.tensorType.dimensions[0].constant.size = 1 << 40

    with pytest.raises(PackageError, match=r"x has shape \(1099511627776, 8\), more than 2147483648 values"):
        read_package(edited(made(tmp_path), vast))


def test_inputs_that_are_missing_or_unknown_are_named(tmp_path: Path) -> None:
    main = runners(made(tmp_path))["main"]
    with pytest.raises(PackageError, match="needs x"):
        main.run({})
    with pytest.raises(PackageError, match="no input z"):
        main.run({"z": np.ones((2, 8), np.float16)})
    with pytest.raises(PackageError, match=r"x has shape \(2, 7\)"):
        main.run({"x": np.ones((2, 7), np.float16)})


def test_an_input_that_stays_is_given_once(tmp_path: Path) -> None:
    one = function(
        "iOS17",
        {"x": tensor([2, 8]), "z": tensor([2, 8])},
        lambda x, z: {"y": mb.add(x=mb.square(x=x), y=z), "w": mb.square(x=x)},
    )
    save(program({"main": one}), tmp_path / "Two.mlpackage", specification("iOS17"), {})
    whole = runners(tmp_path / "Two.mlpackage")["main"]
    x, z = (np.random.default_rng(seed).normal(size=(2, 8)).astype(np.float16) for seed in (0, 1))
    part = whole.fixed({"x": x})
    assert [operation.kind for operation in part.left] == ["add", "identity"]
    for found, wanted in zip(part.run({"z": z}).values(), whole.run({"x": x, "z": z}).values(), strict=True):
        assert (found == wanted).all()


def test_weights_that_are_cut_short_are_an_error(tmp_path: Path) -> None:
    package = made(tmp_path)
    file = package / DATA / "weights/weight.bin"
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(PackageError, match=r"weight\.bin"):
        read_package(package)


def test_weights_outside_of_the_package_are_not_opened(tmp_path: Path) -> None:
    shutil.copy(made(tmp_path) / DATA / "weights/weight.bin", tmp_path / "other.bin")

    def elsewhere(model: Any) -> None:
        for one in operations(model):
            value = one.attributes["val"]
            if value.WhichOneof("value") == "blobFileValue":
                value.blobFileValue.fileName = "@model_path/../../../other.bin"

    with pytest.raises(PackageError, match="not in the package"):
        read_package(edited(tmp_path / "One.mlpackage", elsewhere))


def test_a_specification_outside_of_the_package_is_not_opened(tmp_path: Path) -> None:
    package = made(tmp_path)
    manifest = json.loads((package / "Manifest.json").read_text())
    for entry in manifest["itemInfoEntries"].values():
        entry["path"] = "../../elsewhere.mlmodel"
    (tmp_path / "elsewhere.mlmodel").write_bytes(b"")
    (package / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PackageError, match="outside"):
        read_package(package)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"rootModelIdentifier": 3, "itemInfoEntries": {}}', b"[1]"])
def test_a_folder_that_is_no_package_is_an_error(content: bytes, tmp_path: Path) -> None:
    package = made(tmp_path)
    (package / "Manifest.json").write_bytes(content)
    with pytest.raises(PackageError, match="is no package"):
        read_package(package)


def test_a_specification_that_is_damaged_is_an_error(tmp_path: Path) -> None:
    package = made(tmp_path)
    (package / DATA / "model.mlmodel").write_bytes(b"\xff\xff\xff\xff")
    with pytest.raises(PackageError):
        read_package(package)
