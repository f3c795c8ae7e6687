"""Golden cases of a chat bundle: what it said when it was made, for the device to compare with (`sottovoce verify`)."""

from pathlib import Path

from sottovoce.chat.loading import LoadedChat
from sottovoce.chat.prompt import tokens_of
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
    ready = LoadedChat.open(draft, 2, None)
    try:
        prompts = list(_TEXTS)
        files: dict[str, bytes | Path] = {}
        if ready.template is not None:
            wanted = [one.messages for one in CONVERSATIONS if one.name in _QUESTIONS]
            rendered = [render_case(ready, messages) for messages in wanted]
            prompts += rendered
            case = {"messages": list(wanted[-1]), "rendered": rendered[-1]}
            files[TEMPLATE_CASE] = canonical_json(case)
        for number, prompt in enumerate(prompts):
            files[f"golden/case-{number}.json"] = canonical_json(_case(ready, prompt).to_json())
        return files
    finally:
        ready.engine.close()


def _case(ready: LoadedChat, text: str) -> ChatCase:
    prompt = tokens_of(ready, text)
    tokens = choose(ready, prompt, TOKENS)
    logprobs = tuple(round(float(value), 4) for value in score(ready, prompt, tokens)[0])
    said = b"".join(ready.engine.vocabulary.token_bytes(token) for token in tokens)
    return ChatCase(tuple(prompt), said.decode("utf-8", "replace"), tuple(tokens), logprobs)
