"""Questions that a compile asks: a file of them, and how it is read. Asks nothing itself (`answers.py`)."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_ANSWER = 128  # tokens, where the adapter's own settings do not say


@dataclass(frozen=True, slots=True)
class Questions:
    """Where they are, and how the answers in plain text begin (None: the lines say it themselves)."""

    path: Path
    marker: str | None = None
    max_answer: int = MAX_ANSWER

    @classmethod
    def of(cls, path: Path, marker: str | None, adapter: Path | None) -> "Questions":
        """With what `adapter` (a folder) was trained with where nothing else is said."""
        said = _settings(adapter)
        most = said.get("max_new_tokens")
        return cls(path, said.get("answer_marker") if marker is None else marker, most if most else MAX_ANSWER)


def _settings(adapter: Path | None) -> dict[str, Any]:
    """settings.json of an adapter that `sottovoce finetune` made; nothing of another."""
    if adapter is None:
        return {}
    try:
        found = json.loads((adapter / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found.get("settings", found) if isinstance(found, dict) else {}


def unescaped(marker: str) -> str:
    """What somebody typed, with a line's end for \\n and a tabulator for \\t."""
    return marker.replace("\\n", "\n").replace("\\t", "\t")
