"""Golden cases of a chat bundle: what it said when it was made, for the device to compare with (`sottovoce verify`)."""

from collections.abc import Sequence
from pathlib import Path

from sottovoce.chat.loading import LoadedChat
from sottovoce.chat.prompt import tokens_of
from sottovoce.chat.types import Message
from sottovoce.errors import InputError
from sottovoce.golden_chat import TEMPLATE_CASE, ChatCase, choose, render_case, score
from sottovoce_compiler.pack import canonical_json
from sottovoce_compiler.report.conversations import CONVERSATIONS

TOKENS = 32  # of each answer
_TEXTS = (
    "The lighthouse keeper climbed the stairs, wound the clock, and wrote into the log:",
    "def greatest_common_divisor(a, b):\n    ",
)
_QUESTIONS = ("one question", "several turns with a system message")


def chat_golden_files(draft: Path) -> dict[str, bytes | Path]:
    """The files below golden/ for the bundle at `draft`."""
    ready = LoadedChat.open(draft, 1, None)
    try:
        prompts = list(_TEXTS)
        files: dict[str, bytes | Path] = {}
        if ready.template is not None:
            rendered = [(messages, text) for messages in _asked() if (text := _rendered(ready, messages)) is not None]
            prompts += [text for _, text in rendered]
            for messages, text in rendered[-1:]:
                files[TEMPLATE_CASE] = canonical_json({"messages": list(messages), "rendered": text})
        for number, prompt in enumerate(prompts):
            files[f"golden/case-{number}.json"] = canonical_json(_case(ready, prompt).to_json())
        return files
    finally:
        ready.engine.close()


def _asked() -> list[tuple[Message, ...]]:
    return [one.messages for one in CONVERSATIONS if one.name in _QUESTIONS]


def _rendered(ready: LoadedChat, messages: Sequence[Message]) -> str | None:
    """None where the template refuses them, as one does that knows no system message."""
    try:
        return render_case(ready, messages)
    except InputError:
        return None


def _case(ready: LoadedChat, text: str) -> ChatCase:
    prompt = tokens_of(ready, text)
    tokens = choose(ready, prompt, TOKENS)
    logprobs = tuple(round(float(value), 4) for value in score(ready, prompt, tokens)[0])
    said = b"".join(ready.engine.vocabulary.token_bytes(token) for token in tokens)
    return ChatCase(tuple(prompt), said.decode("utf-8", "replace"), tuple(tokens), logprobs)
