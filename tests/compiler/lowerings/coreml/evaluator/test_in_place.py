"""States: what was read stays as it was, whatever is done without copying."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from coremltools.converters.mil import Builder as mb

from sottovoce_compiler.lowerings.coreml.package import save
from sottovoce_compiler.lowerings.coreml.program import function, program, specification, state, tensor
from sottovoce_compiler.lowerings.coreml.stand_in import runners

ROW = np.arange(1, 5, dtype=np.float16)


def ran(body: Callable[[Any, Any], dict[str, Any]], folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Outputs, and the state (3, 4) afterwards; it holds 10 everywhere before."""
    one = function("iOS18", {"x": tensor([1, 4]), "kept": state([3, 4])}, lambda x, kept: body(x, kept))
    save(program({"main": one}), folder / "One.mlpackage", specification("iOS18"), {})
    states = {"kept": torch.full((3, 4), 10.0)}
    found = runners(folder / "One.mlpackage")["main"].run({"x": ROW[None]}, states)
    return found, states["kept"].numpy()


def put(x: Any, of: Any, row: int) -> Any:
    return mb.slice_update(x=of, update=x, begin=[row, 0], end=[row + 1, 4])


def test_a_row_is_put_into_a_state_and_read_again(tmp_path: Path) -> None:
    def body(x: Any, kept: Any) -> dict[str, Any]:
        after = mb.coreml_update_state(state=kept, value=put(x, mb.read_state(input=kept), 1))
        return {"y": mb.slice_by_index(x=after, begin=[0, 0], end=[2, 4])}

    found, kept = ran(body, tmp_path)
    assert (found["y"] == np.stack([np.full(4, 10), ROW])).all()
    assert (kept == np.stack([np.full(4, 10), ROW, np.full(4, 10)])).all()


def test_what_was_read_before_a_write_stays_as_it_was(tmp_path: Path) -> None:
    def body(x: Any, kept: Any) -> dict[str, Any]:
        before = mb.read_state(input=kept)
        after = mb.coreml_update_state(state=kept, value=put(x, mb.read_state(input=kept), 1))
        return {"y": mb.add(x=before, y=after)}

    found, _ = ran(body, tmp_path)
    assert (found["y"] == np.stack([np.full(4, 20), ROW + 10, np.full(4, 20)])).all()


def test_a_slice_that_is_not_written_back_leaves_the_state(tmp_path: Path) -> None:
    found, kept = ran(lambda x, kept: {"y": put(x, mb.read_state(input=kept), 1)}, tmp_path)
    assert (found["y"][1] == ROW).all()
    assert (kept == 10).all()


def test_what_is_written_twice_is_used_as_it_was_in_between(tmp_path: Path) -> None:
    def body(x: Any, kept: Any) -> dict[str, Any]:
        first = mb.coreml_update_state(state=kept, value=put(x, mb.read_state(input=kept), 0))
        second = mb.coreml_update_state(state=kept, value=put(x, mb.read_state(input=kept), 2))
        return {"y": mb.sub(x=second, y=first)}

    found, kept = ran(body, tmp_path)
    assert (found["y"] == np.stack([np.zeros(4), np.zeros(4), ROW - 10])).all()
    assert (kept[0] == ROW).all()
