"""Reading what someone else wrote: sizes bounded, names kept inside their folder, digests streamed.

Knows no model format. Also holds the one line that tells a user that something long has begun.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sottovoce_compiler.sources.checkpoint import SourceError

MAX_JSON_BYTES = 256 * 2**20  # the largest tokenizer.json published for a speech or chat model is about 35 MB
READ_BYTES = 2**20

# The Hub spells licences in lower case; a manifest uses the SPDX names.
_SPDX = {"mit": "MIT", "apache-2.0": "Apache-2.0", "bsd-3-clause": "BSD-3-Clause", "cc-by-4.0": "CC-BY-4.0"}


def cache_root() -> Path:
    """$SOTTOVOCE_CACHE, else `sottovoce` in the user's cache folder."""
    if own := os.environ.get("SOTTOVOCE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sottovoce"


def read_text(path: Path) -> str:
    """The UTF-8 text of a file of at most `MAX_JSON_BYTES`; anything else is a `SourceError`."""
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise SourceError(f"{path} has {size} bytes; a file of this kind may have {MAX_JSON_BYTES} at most")
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); fetch it again") from None


def read_json(path: Path) -> Any:
    """The JSON value in a file; what is not JSON is a `SourceError` that says where."""
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise SourceError(f"{path} is not valid JSON ({error}); fetch it again") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Like `read_json`, for a file that must hold an object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise SourceError(f"{path} holds a JSON {type(value).__name__}, expected an object")
    return value


def sha256_of(path: Path) -> str:
    """The hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def digests(paths: Iterable[Path]) -> dict[str, str]:
    """File name -> hex SHA-256, sorted by name."""
    return {path.name: sha256_of(path) for path in sorted(set(paths), key=lambda path: path.name)}


def file_beside(index: Path, name: object) -> Path:
    """The file `name` in the folder of `index`, which named it; a name that leaves the folder is refused."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w][\w.\-]*", name):
        raise SourceError(f"{index} names the file {name!r}; expected a plain file name in the same folder")
    path = index.parent / name
    if not path.is_file():
        raise SourceError(f"{index} names {name}, which is missing in {index.parent}; fetch the model again")
    return path


def licence_in_readme(folder: Path) -> str | None:
    """The `license:` line of the model card in `folder`/README.md, as SPDX spells it where known."""
    card = folder / "README.md"
    if not card.is_file() or card.stat().st_size > READ_BYTES:
        return None
    front = re.match(r"---\n(.*?)\n---", card.read_bytes().decode("utf-8", "replace"), re.DOTALL)
    line = re.search(r"^license:[ \t]*[\"']?([\w.\-]+)", front.group(1), re.MULTILINE) if front else None
    return spdx(line.group(1)) if line else None


def spdx(licence: str) -> str:
    """A licence as the Hub spells it, by its SPDX name where it has one."""
    return _SPDX.get(licence, licence)


def say(message: str) -> None:
    """One line of progress on stderr."""
    print(f"sottovoce: {message}", file=sys.stderr, flush=True)
