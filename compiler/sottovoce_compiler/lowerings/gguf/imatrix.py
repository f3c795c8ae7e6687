"""The importance matrix: how strongly each column of a weight is driven, measured on calibration text.

Knows a torch model whose linears are named to it, and nothing of GGUF files or of what the numbers are used for.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sottovoce.errors import InputError

if TYPE_CHECKING:
    import torch

    from sottovoce_compiler.families.causal import Float


class _Squares:
    """Sum of the squared inputs of one linear, by column, and over how many positions."""

    def __init__(self) -> None:
        self.total: torch.Tensor | None = None
        self.count = 0

    def add(self, module: "torch.nn.Module", inputs: tuple[Any, ...]) -> None:
        x = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).float()
        squares = x.square().double().sum(dim=0)
        self.total = squares if self.total is None else self.total + squares
        self.count += len(x)


def importance(
    model: "torch.nn.Module", tokens: Iterable[NDArray[np.int64]], modules: Mapping[str, str]
) -> dict[str, "Float"]:
    """The mean square of each linear's input over all positions of `tokens`, by GGUF name, (columns,) float32.

    `modules` maps the GGUF name of a weight to the module of `model` that multiplies by it; names may share one, as
    the halves of a fused weight do. `tokens` are batches (batch, positions) of token ids, run from position 0 without
    padding.

    llama.cpp's imatrix gives the same: sum of squares / count for every weight of a layer. Like there, `token_embd`
    gets none, as a table has no input, and a head tied to it gets none either: leave both out of `modules`. A head of
    its own may be in it (llama.cpp's --process-output); its input is what the last norm gives. Raises InputError where
    there are no tokens or the model computes something that is not finite, ValueError for a module that is not there
    or is never run.
    """
    sums = {path: _Squares() for path in modules.values()}
    known = dict(model.named_modules())
    if unknown := [path for path in sums if path not in known]:
        raise ValueError(f"the model has no module {unknown[0]}")
    handles = [known[path].register_forward_pre_hook(found.add) for path, found in sums.items()]
    try:
        positions = _run(model, tokens)
    finally:
        for handle in handles:
            handle.remove()
    if not positions:
        raise InputError("the calibration text has no tokens; give some text that the model will be used for")
    means = {path: _mean(path, found) for path, found in sums.items()}
    return {name: means[path] for name, path in modules.items()}


def _run(model: "torch.nn.Module", tokens: Iterable[NDArray[np.int64]]) -> int:
    """How many positions were run, without dropout; the model is left as it was."""
    import torch

    was_training, positions = model.training, 0
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.inference_mode():
            for batch in tokens:
                model(input_ids=torch.as_tensor(batch, device=device), use_cache=False)
                positions += batch.size
    finally:
        model.train(was_training)
    return positions


def _mean(path: str, found: _Squares) -> "Float":
    if found.total is None:
        raise ValueError(f"module {path} was never run")
    mean: Float = (found.total / found.count).float().cpu().numpy()
    if not np.isfinite(mean).all():
        raise InputError(f"the model's values at {path} are not finite; it cannot be calibrated in this precision")
    return mean
