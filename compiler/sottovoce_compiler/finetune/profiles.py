"""What fine-tuning does with each family: which matrices get an adapter, what PEFT calls them, and which operations the
forward pass is made of, and why. One visible table.

Knows families by their config's `model_type`. Doesn't make a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sottovoce.errors import InputError

ALL_LINEAR = "all-linear"  # PEFT's word for every matrix of the layers


@dataclass(frozen=True, slots=True)
class Operation:
    """One of `sottovoce_kernels` in the forward pass of a family."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Profile:
    """`modules`: role -> last part of the module's name, of every matrix that may get an adapter; all of them do where
    nothing is chosen. Several roles of one name lie in one matrix and share an adapter. `places` are the parts of names
    by which matrices of one role are told apart, and chosen together."""

    modules: Mapping[str, str]
    operations: tuple[Operation, ...]
    places: tuple[str, ...] = ("self_attn", "mlp")

    def suffixes(self) -> tuple[str, ...]:
        """Every module's name, each once."""
        return tuple(dict.fromkeys(self.modules.values()))

    def targets(self, chosen: Sequence[str] | None = None) -> tuple[str, ...]:
        """What gets an adapter, for `chosen_modules`: `chosen` by names, roles, places or both ("decoder",
        "encoder_attn.q"), or "all-linear"; every matrix where nothing is chosen.

        Raises InputError naming one that is not known, and those that are.
        """
        if not chosen or ALL_LINEAR in chosen:
            return self.suffixes()
        wanted = {self._target(name) for name in chosen}
        plain = [suffix for suffix in self.suffixes() if suffix in wanted]
        return (*plain, *sorted(wanted - set(plain)))

    def _target(self, name: str) -> str:
        """The name with a role at its end replaced by that of the module."""
        *places, last = name.split(".")
        module = self.modules.get(last, last)
        if module not in (*self.suffixes(), *self.places) or any(place not in self.places for place in places):
            raise InputError(
                f"there is no target module {name!r}; these are known: {', '.join(self.suffixes())} "
                f"(or by role {', '.join(self.modules)}), all or those in {', '.join(self.places)}, "
                f"as {self.places[-1]}.{next(iter(self.modules))}"
            )
        return ".".join([*places, module])


_LLAMA_MODULES = {
    **{"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj"},
    **{"gate": "gate_proj", "up": "up_proj", "down": "down_proj"},
}
_PHI_MODULES = {
    **dict.fromkeys(("q", "k", "v"), "qkv_proj"),
    "o": "o_proj",
    **dict.fromkeys(("gate", "up"), "gate_up_proj"),
    "down": "down_proj",
}

_NORM = Operation("rms_norm", "each norm takes in the residual that is added before it")
_APART = Operation("lora_linear", "q, k and v read x once, gate and up once; the adapter is part of each product")
_FUSED = Operation("lora_linear", "qkv and gate_up are one matrix each, as the source has them, and share an adapter")
_ROPE = Operation("rope", "q and k turn together, by the position in their own example")
_ATTENTION = Operation("attention", "over each example of the pack, without padding; heads of k and v are shared")
_SWIGLU = Operation("swiglu", "the gate's activation with the product that follows")
_LOSS = Operation("linear_cross_entropy", "head and loss in chunks of the labelled tokens; logits are never whole")
_LLAMA = (_NORM, _APART, _ROPE, _ATTENTION, _SWIGLU, _LOSS)
_QWEN3 = (
    Operation("rms_norm", "each norm takes in the residual that is added before it; each head of q and k has one"),
    *_LLAMA[1:],
)
_GEMMA = (
    Operation("rms_norm", "before and after each part, and over each head of q and k; computed with the plus one done"),
    _APART,
    Operation("rope", "q and k turn together; layers that slide by another base"),
    Operation("attention", "over each example of the pack; layers that slide see their window only"),
    Operation("geglu", "the gate's activation (GELU by its tanh approximation) with the product that follows"),
    Operation("linear_cross_entropy", "head, softcap and loss in chunks of the labelled tokens"),
)
_SMOLLM3 = (
    *_LLAMA[:2],
    Operation("rope", "q and k turn together; not in the layers that have no positions"),
    *_LLAMA[3:],
)

_WHISPER_MODULES = {
    **{"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"},
    **{"up": "fc1", "down": "fc2"},
}
_WHISPER = (
    Operation("layer_norm", "each norm takes in the residual that is added before it"),
    Operation("lora_linear", "q, k and v read x once, and k and v of what was heard; the adapter is in each product"),
    Operation("attention", "over each recording and each text of the pack; silence weighs as much as it is long"),
    Operation("gelu_bias", "the activation with the bias before it"),
    _LOSS,
)

PROFILES: Mapping[str, Profile] = {
    "whisper": Profile(_WHISPER_MODULES, _WHISPER, ("encoder", "decoder", "self_attn", "encoder_attn")),
    "llama": Profile(_LLAMA_MODULES, _LLAMA),
    "mistral": Profile(_LLAMA_MODULES, _LLAMA),
    "qwen2": Profile(_LLAMA_MODULES, _LLAMA),
    "qwen3": Profile(_LLAMA_MODULES, _QWEN3),
    "gemma3": Profile(_LLAMA_MODULES, _GEMMA),
    "gemma3_text": Profile(_LLAMA_MODULES, _GEMMA),
    "smollm3": Profile(_LLAMA_MODULES, _SMOLLM3),
    "phi3": Profile(_PHI_MODULES, (_NORM, _FUSED, *_LLAMA[2:])),
}


def profile_of(family: str) -> Profile:
    """The profile of a `model_type`. Raises InputError naming one that cannot be fine-tuned, and those that can."""
    if family not in PROFILES:
        raise InputError(f"{family} cannot be fine-tuned here; {', '.join(sorted(PROFILES))} can")
    return PROFILES[family]


def chosen_modules(names: Sequence[str], targets: Sequence[str]) -> list[str]:
    """Those of the modules `names` that have the parts of one of `targets`, in their order."""
    wanted = [target.split(".") for target in targets]
    return [name for name in names if any(_has(name.split("."), parts) for parts in wanted)]


def _has(name: Sequence[str], parts: Sequence[str]) -> bool:
    rest = iter(name)
    return all(part in rest for part in parts)


def explain(family: str) -> str:
    """The profile as `finetune --explain` shows it: a line for the modules, one for each operation."""
    profile = profile_of(family)
    lines = [f"{family}: adapters on {', '.join(profile.suffixes())}"]
    width = max(len(operation.name) for operation in profile.operations)
    return "\n".join([*lines, *(f"  {one.name:<{width}}  {one.why}" for one in profile.operations)])
