"""A source packed in any precision, without measuring it: what the stages of the source work on."""

from pathlib import Path

from sottovoce_compiler.chat_pipeline import TEMPLATE, lower, manifest_fields
from sottovoce_compiler.families import language_model
from sottovoce_compiler.pack import write_bundle
from sottovoce_compiler.request import Request
from sottovoce_compiler.sources.checkpoint import Checkpoint
from sottovoce_compiler.tokens import chat_tokens
from sottovoce_targets import load_target

TARGET = "linux-x86-64"


def draft(checkpoint: Checkpoint, form: str, precision: str, folder: Path, *, calibrate: bool = True) -> Path:
    """A bundle in the empty `folder`; `form` is gguf or onnx. Calibrated on random tokens, as compile does without a
    text of the user's."""
    target = load_target(TARGET)
    request = Request(checkpoint.spec, target, folder, precision=precision, format=form, calibrate=calibrate)
    model = language_model(checkpoint)
    lowered, _ = lower(request, form, precision, model, checkpoint, folder, lambda done: None)
    tokens = chat_tokens(checkpoint, model.spec)
    fields = manifest_fields(request, checkpoint, precision, tokens, lowered, model.spec.family)
    files = dict(lowered.files)
    if checkpoint.chat_template is not None:
        files[TEMPLATE] = checkpoint.chat_template.encode()
    return write_bundle(folder / "draft.svb", fields, files)
