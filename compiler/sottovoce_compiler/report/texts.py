"""Text that language models are measured on: the user's, or the small built-in set. Knows files, not models."""

import hashlib
import json
import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from sottovoce.errors import InputError

MAX_BYTES = 64 << 20
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class TextSet:
    """Passages, each read from an empty context; `sha256` is of all of them."""

    name: str
    passages: tuple[str, ...]

    @property
    def sha256(self) -> str:
        return hashlib.sha256("\0".join(self.passages).encode()).hexdigest()


def builtin_text() -> TextSet:
    """About 1,400 tokens of English in six kinds, written for the purpose."""
    table = tomllib.loads(files("sottovoce_compiler.report").joinpath("builtin_text.toml").read_text(encoding="utf-8"))
    return TextSet(table["name"], tuple(passage["text"].strip() for passage in table["passage"]))


def read_texts(path: str | Path) -> TextSet:
    """A text file as one passage, or a .jsonl file of {"text": ...} with one a line.

    Raises InputError naming the file and the line that cannot be used.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{path} has {size} bytes; at most {MAX_BYTES} are read")
        content = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start})") from None
    passages = tuple(_lines(file, content)) if file.suffix == ".jsonl" else (content,)
    kept = tuple(passage for passage in passages if passage.strip())
    if not kept:
        raise InputError(f"{path} holds no text")
    return TextSet(file.name, kept)


def _lines(file: Path, content: str) -> list[str]:
    found = []
    # By line ends alone: JSON may have the others that Unicode knows within a text.
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{file}, line {number}: not JSON") from None
        text = value.get("text") if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise InputError(f'{file}, line {number}: expected {{"text": "..."}}')
        if _HALF.search(text):
            raise InputError(f"{file}, line {number}: half of a surrogate pair is no text")
        found.append(text)
    return found


# Beside the text that is measured on: what tokenizers disagree about.
PROBE_TEXTS = (
    "It's 12:30, we'll PAY 1,234.50 € — don't you'D? 1234567 ½ ٣٤ x²",
    "def f(a):\n\treturn {'k': a[0]}  # 100%\r\n\n\n    indented",
    "  leading, double  and trailing spaces   ",
    "Größe ÉCOLE Привет αβγ हिन्दी ภาษาไทย العَرَبِيَّة 我在2024年学习 日本語テキスト 한국어",
    "😀👩‍👩‍👧 🇪🇺☕️ → ∑ “quotes” e\u0301 \u00a0 \u3000",
    "https://example.org/?q=a&b=%20#top user@host.example <b>bold</b> ~/path/*.txt",
)
