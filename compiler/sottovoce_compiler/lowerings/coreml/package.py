"""The `.mlpackage` of a program: a folder of a manifest, a specification and a file of weights.

Written so that the same program gives the same bytes: coremltools alone would number its items at random and note the
day. Runs in the worker process alone.
"""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path

import coremltools as ct
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.backend.mil.load import load as to_specification
from coremltools.converters.mil.mil import Program

SUFFIX = ".mlpackage"
DATA = "Data/com.apple.CoreML"
_NAMESPACE = uuid.UUID("6d1d1a06-7d5e-4f39-9d0c-4c8f6f0b6f7a")  # ours, for the items' identifiers
_AUTHOR = "com.apple.CoreML"


def save(program: Program, folder: Path, specification: int, about: Mapping[str, str]) -> None:
    """Write `program` to the new `folder`, which ends in `.mlpackage`; `about` becomes its metadata."""
    data = folder / DATA
    weights = data / "weights"
    weights.mkdir(parents=True)
    model = to_specification(program, str(weights), specification_version=specification)
    mb.name_count.clear()  # variables of the next program are numbered from 0 again, whatever was made before
    # What an app shows of a model: https://apple.github.io/coremltools/mlmodel/Format/Model.html
    model.description.metadata.shortDescription = about.get("description", "")
    model.description.metadata.license = about.get("licence", "")
    model.description.metadata.userDefined["com.github.apple.coremltools.version"] = ct.__version__
    for key, value in about.items():
        if "." in key:
            model.description.metadata.userDefined[key] = value
    (data / "model.mlmodel").write_bytes(model.SerializeToString(deterministic=True))
    (folder / "Manifest.json").write_text(json.dumps(_manifest(folder.name), indent=4) + "\n", encoding="ascii")


def _manifest(name: str) -> dict[str, object]:
    items = {
        str(uuid.uuid5(_NAMESPACE, f"{name}/{path}")).upper(): {
            "author": _AUTHOR,
            "description": description,
            "name": path.rsplit("/", 1)[-1],
            "path": f"{_AUTHOR}/{path}",
        }
        for path, description in (("model.mlmodel", "CoreML Model Specification"), ("weights", "CoreML Model Weights"))
    }
    return {"fileFormatVersion": "1.0.0", "itemInfoEntries": items, "rootModelIdentifier": next(iter(items))}
