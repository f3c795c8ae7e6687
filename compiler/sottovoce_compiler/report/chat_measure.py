"""Measures a packed language model as the device loads it: its distribution, tokens, prompts, and its answers' form.

Knows the runtime's chat and the source; what is held against what is decided in `chat_gate`.
"""

import json
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from unicodedata import normalize

from sottovoce.chat.chat import Chat
from sottovoce.chat.loading import LoadedChat
from sottovoce.chat.messages import read_messages
from sottovoce.errors import IncompleteOutputError, InputError
from sottovoce_compiler.report.causal_source import CausalSource
from sottovoce_compiler.report.chat_card import ChatCard, Sameness, Validity
from sottovoce_compiler.report.conversations import CONVERSATIONS, source_rendering
from sottovoce_compiler.report.language import Float, LanguageScores, compare
from sottovoce_compiler.report.texts import PROBE_TEXTS, TextSet
from sottovoce_compiler.sources.checkpoint import Checkpoint

# llama.cpp's threads wait for each other by spinning: on as many as there are cores, whatever else runs makes it slow
# several times over. Not how busy it is decides, since answers round otherwise with another number of threads.
THREADS = max(1, min(4, (os.cpu_count() or 1) // 2))
MAX_ANSWER = 120  # tokens; every schema of builtin_chat.toml has a shorter answer
Progress = Callable[[float], None]


def measure_chat(
    checkpoint: Checkpoint, artifact: Path, texts: TextSet, progress: Progress = lambda done: None
) -> ChatCard:
    """Everything that a report says of the bundle (or GGUF file) at `artifact`; `progress` from 0 to 1."""
    with Chat(artifact, threads=THREADS) as chat:
        chat.load()
        ready = chat._ready
        tokenizer = source_tokenizer(checkpoint)
        scores = compared(checkpoint, tokenizer, ready, texts, lambda done: progress(0.8 * done))
        same = _tokenized_alike(ready, tokenizer, [*texts.passages, *PROBE_TEXTS])
        template = _rendered_alike(ready, checkpoint) if ready.template is not None else None
        answers = _answers(chat, progress) if ready.template is not None else (None, None, None)
        engine = ready.engine.name
    return ChatCard(checkpoint.name, texts.name, texts.sha256, engine, scores, same, template, *answers)


def measure_distribution(
    checkpoint: Checkpoint, artifact: Path, texts: TextSet, progress: Progress = lambda done: None
) -> tuple[LanguageScores | None, str]:
    """What the bundle at `artifact` loses, as `measure_chat` has it, and the engine that ran it; no answers."""
    with Chat(artifact, threads=THREADS) as chat:
        chat.load()
        scores = compared(checkpoint, source_tokenizer(checkpoint), chat._ready, texts, progress)
        return scores, chat.engine


def compared(
    checkpoint: Checkpoint, tokenizer: Any, ready: LoadedChat, texts: TextSet, progress: Progress
) -> LanguageScores | None:
    """The artifact's distribution against its source's on the source's tokens of `texts`."""
    passages = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts.passages]
    engine = ready.engine
    bos = engine.vocabulary.bos if engine.vocabulary.adds_bos else None
    return compare(
        CausalSource(checkpoint).logits, artifact_logits(ready), passages, bos, progress, context=engine.context
    )


def artifact_logits(ready: LoadedChat) -> Callable[[Sequence[int]], Float]:
    """Logits after each of some tokens, from an empty context."""

    def logits(tokens: Sequence[int]) -> Float:
        ready.prefix.truncate(0)
        return ready.prefix.evaluate(tokens, outputs=len(tokens))

    return logits


def source_tokenizer(checkpoint: Checkpoint) -> Any:
    """The source's own tokenizer, a `tokenizers.Tokenizer`. Raises InputError where there is none."""
    from tokenizers import Tokenizer

    if checkpoint.tokenizer_file is None:
        raise InputError(f"{checkpoint.name} has no tokenizer.json, so nothing can be measured")
    return Tokenizer.from_file(str(checkpoint.tokenizer_file))


def artifact_tokens(ready: LoadedChat, text: str) -> list[int]:
    """The artifact's tokens of `text`, without the one that text begins with."""
    return ready.engine.vocabulary.encode(normalize("NFC", text) if ready.composes else text, special=True)


def _tokenized_alike(ready: LoadedChat, tokenizer: Any, texts: Sequence[str]) -> Sameness:
    different = [
        text for text in texts if artifact_tokens(ready, text) != tokenizer.encode(text, add_special_tokens=False).ids
    ]
    return Sameness(len(texts), len(texts) - len(different), repr(different[0][:60]) if different else "")


def _rendered_alike(ready: LoadedChat, checkpoint: Checkpoint) -> Sameness:
    """Conversations that the template refuses must be refused by both."""
    assert ready.template is not None
    render = source_rendering(checkpoint)
    different = []
    for conversation in CONVERSATIONS:
        expected = render(conversation)
        try:
            found: str | None = ready.template.render(
                read_messages(conversation.messages),
                tools=conversation.tools,
                add_generation_prompt=conversation.add_generation_prompt,
            )
        except InputError:
            found = None
        if found != expected:
            different.append(conversation.name)
    asked = len(CONVERSATIONS)
    return Sameness(asked, asked - len(different), different[0] if different else "")


def _answers(chat: Chat, progress: Progress) -> tuple[Validity, Validity, Validity]:
    """How many answers to a schema, calls of the model's own accord, and required calls are valid."""
    table = tomllib.loads(files("sottovoce_compiler.report").joinpath("builtin_chat.toml").read_text(encoding="utf-8"))
    schemas, tools = table["schema"], table["tool"]
    steps = len(schemas) + 2 * len(tools)
    good = 0
    for number, case in enumerate(schemas):
        good += _answers_schema(chat, case["ask"], json.loads(case["schema"]))
        progress(0.8 + 0.2 * (number + 1) / steps)
    calls = {"auto": 0, "required": 0}
    for number, case in enumerate(tools):
        functions = [_function(name, table["function"][name]) for name in case["functions"]]
        for choice in calls:
            calls[choice] += _calls(chat, case["ask"], functions, choice)
        progress(0.8 + 0.2 * (len(schemas) + 2 * (number + 1)) / steps)
    count = len(tools)
    return Validity(len(schemas), good), Validity(count, calls["auto"]), Validity(count, calls["required"])


def _answers_schema(chat: Chat, ask: str, schema: Mapping[str, Any]) -> bool:
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    try:
        found = chat.chat(
            [{"role": "user", "content": ask}], response_format=form, temperature=0, max_tokens=MAX_ANSWER
        )
        value = json.loads(found.text)
    except (
        IncompleteOutputError,
        InputError,
        json.JSONDecodeError,
    ):  # cut off, or refused: by the template, or for want of room
        return False
    return _fits(value, schema)


def _calls(chat: Chat, ask: str, functions: Sequence[Mapping[str, Any]], choice: str) -> bool:
    try:
        found = chat.chat(
            [{"role": "user", "content": ask}],
            tools=functions,
            tool_choice=choice,
            parallel_tool_calls=False,
            temperature=0,
            max_tokens=MAX_ANSWER,
        )
    except (IncompleteOutputError, InputError):  # cut off, or refused: by the template, or for want of room
        return False
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in functions}
    return bool(found.tool_calls) and all(
        call.name in schemas and _fits(json.loads(call.arguments), schemas[call.name]) for call in found.tool_calls
    )


def _function(name: str, row: Mapping[str, str]) -> dict[str, Any]:
    function = {"name": name, "description": row["description"], "parameters": json.loads(row["parameters"])}
    return {"type": "function", "function": function}


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Judged by another implementation than the one that constrained the answer."""
    import jsonschema

    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))
