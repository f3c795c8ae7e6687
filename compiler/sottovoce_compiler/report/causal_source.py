"""The source language model at full precision: transformers' own, in float32, the truth an artifact is held against.

Knows transformers and a `Checkpoint`. Shares no code with our lowerings: the graph is transformers', the tokens are
those of the source's tokenizer.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.sources.checkpoint import Checkpoint, SourceError

if TYPE_CHECKING:
    import torch

Float = NDArray[np.float32]

_SAID_HERE = ("model_type", "architectures", "dtype", "torch_dtype")  # keys of a config that are not the model's shape


class CausalSource:
    """A language model in transformers, float32 on the CPU; cheap to make, `load` reads the weights."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._model: Any = None

    def load(self) -> Any:
        """The model, an `nn.Module` in evaluation mode; a missing or misshapen tensor is a `SourceError`."""
        if self._model is None:
            self._model = _load(self.checkpoint)
        return self._model

    def logits(self, tokens: Sequence[int]) -> Float:
        """The logits (len(tokens), vocabulary) float32 after each of `tokens`, from an empty context."""
        import torch

        with torch.inference_mode():
            # No mask and no cache: positions are those of the tokens, and nothing is shared between calls.
            out = self.load()(input_ids=torch.tensor([list(tokens)]), use_cache=False)
        found: Float = out.logits[0].float().numpy()
        return found


def _load(checkpoint: Checkpoint) -> Any:
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    library: Any = transformers  # not typed
    values = {key: value for key, value in checkpoint.config.items() if key not in _SAID_HERE}
    try:
        config = library.AutoConfig.for_model(str(checkpoint.config["model_type"]), **values, dtype="float32")
        kind = library.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except (KeyError, ValueError, TypeError, StrictDataclassError) as error:
        why = " ".join(str(error).split())[:200]
        raise SourceError(f"{checkpoint.name}: transformers cannot make the source's model ({why})") from None
    before, bars = library.logging.get_verbosity(), library.utils.logging.is_progress_bar_enabled()
    library.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    try:
        # Beside the weights this makes what no file holds (the rotation's frequencies), which `meta` would leave empty.
        # What is misshapen is then in the report, and refused below.
        model, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=_state(checkpoint),
            dtype="float32",
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    finally:
        library.logging.set_verbosity(before)
        if bars:
            library.utils.logging.enable_progress_bar()
    missing = sorted(set(report["missing_keys"]) - _tied(config))
    if missing or report["mismatched_keys"]:
        found = missing[0] if missing else str(sorted(report["mismatched_keys"])[0])
        raise SourceError(f"{checkpoint.name}: tensor {found} is missing or of another shape; fetch the model again")
    return model.eval()


def _state(checkpoint: Checkpoint) -> "dict[str, torch.Tensor]":
    import torch

    return {
        name: torch.from_numpy(checkpoint.tensors.load(name).astype(np.float32, copy=False))
        for name in checkpoint.tensors.names()
    }


def _tied(config: Any) -> set[str]:
    """A head that is the embedding has no tensor of its own."""
    return {"lm_head.weight"} if config.tie_word_embeddings else set()
