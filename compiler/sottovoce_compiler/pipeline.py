"""The compiler: resolve a source, see what kind of model it is, and hand it to the pipeline of its task.

Every stage has a name (`STAGES`), which progress bars and logs use. What is done with a model is in `speech_pipeline`
and `chat_pipeline`, each read from top to bottom.
"""

from sottovoce_compiler.adapter import Adapted, with_adapter
from sottovoce_compiler.families import family_of
from sottovoce_compiler.request import Compiled, Progress, Request
from sottovoce_compiler.sources import resolve
from sottovoce_compiler.sources.peft import open_adapter
from sottovoce_compiler.staging import check_destination


def compile_model(request: Request, progress: Progress = lambda stage, done: None) -> Compiled:
    """Compile one model. Raises SourceError, UnsupportedModelError, GateError, or what packing raises."""
    output = check_destination(request.output)
    progress("resolve", 0)
    checkpoint = resolve(request.source)
    adapted = None
    if request.adapter is not None:
        adapted = Adapted(checkpoint, open_adapter(request.adapter))
        checkpoint = with_adapter(checkpoint, adapted.adapter)
    if family_of(checkpoint.config, checkpoint.name) == "whisper":
        from sottovoce_compiler.speech_pipeline import compile_speech

        return compile_speech(request, checkpoint, output, progress, adapted)
    from sottovoce_compiler.chat_pipeline import compile_chat

    return compile_chat(request, checkpoint, output, progress, adapted)
