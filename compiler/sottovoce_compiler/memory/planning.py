"""Which plan a request has: that of its model's kind in its format, or of the page where its target is a browser; None
where it is not known.

Nothing is read but shapes, so that a model that cannot fit is refused before its weights are touched.
"""

from sottovoce.streaming.options import StreamOptions
from sottovoce_compiler.families.causal import CausalModel
from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.lowerings.gguf.lowering import tensor_choices
from sottovoce_compiler.lowerings.gguf.model import graph_of
from sottovoce_compiler.lowerings.litert.causal_recipe import causal_recipe as litert_causal_recipe
from sottovoce_compiler.lowerings.litert.recipe import recipe as litert_recipe
from sottovoce_compiler.lowerings.onnx.causal_recipe import causal_recipe
from sottovoce_compiler.lowerings.onnx.recipe import recipe
from sottovoce_compiler.memory.browser import plan_causal_browser, plan_whisper_browser
from sottovoce_compiler.memory.causal_gguf import plan_causal_gguf
from sottovoce_compiler.memory.causal_litert import plan_causal_litert
from sottovoce_compiler.memory.causal_onnx import plan_causal_onnx
from sottovoce_compiler.memory.plan import MemoryPlan
from sottovoce_compiler.memory.whisper_litert import plan_whisper_litert
from sottovoce_compiler.memory.whisper_onnx import plan_whisper_onnx
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_targets import Target

BROWSER = "browser"  # the system of a target where a page's renderer runs the bundle, and not the device's runtime


def plan_speech(target: Target, form: str, precision: str, spec: WhisperSpec) -> MemoryPlan | None:
    """The plan of a speech model for `target`. Raises InputError where no block of weights divides its rows."""
    window = target.stream.get("window", StreamOptions().window)
    if form == "litert" and target.os != BROWSER:
        return plan_whisper_litert(spec, litert_recipe(precision, spec.row_unit), window)
    if form != "onnx":
        return None
    chosen = recipe(precision, target.arch, frozenset(target.instructions), spec.row_unit)
    if target.os == BROWSER:
        return plan_whisper_browser(spec, chosen)
    return plan_whisper_onnx(spec, chosen, window)


def plan_chat(
    target: Target, form: str, precision: str, model: CausalModel, checkpoint: Checkpoint
) -> MemoryPlan | None:
    """The plan of a language model for `target`. Raises InputError or UnsupportedModelError as lowering it would."""
    spec = model.spec
    if target.os == BROWSER and form != "onnx":
        return None
    if form == "gguf":
        graph = graph_of(spec, checkpoint.name)
        choices = tensor_choices(model, graph.architecture, precision, importance=False)
        context = min(target.chat.context, graph.context)
        return plan_causal_gguf(spec, choices, context, target.arch, target.instructions)
    if checkpoint.tokenizer_file is None:
        return None
    context, tokenizer = min(target.chat.context, spec.context), checkpoint.tokenizer_file.stat().st_size
    if form == "litert":
        return plan_causal_litert(spec, litert_causal_recipe(precision, spec), context, tokenizer)
    if form == "onnx":
        chosen = causal_recipe(precision, target.arch, frozenset(target.instructions), spec)
        if target.os == BROWSER:
            return plan_causal_browser(spec, chosen, context, tokenizer)
        return plan_causal_onnx(spec, chosen, context, tokenizer)
    return None
