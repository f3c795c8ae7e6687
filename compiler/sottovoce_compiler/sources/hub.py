"""Models on the Hugging Face Hub: `OWNER/NAME[@REVISION]`, with or without `hf:` in front.

Only the files that a layout reads are fetched, into huggingface_hub's own cache, so that a model which
another tool has fetched is not fetched again. Does not read the files (`layouts`).
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sottovoce_compiler.sources import ctranslate2, folder, layouts
from sottovoce_compiler.sources.checkpoint import Checkpoint, SourceError
from sottovoce_compiler.sources.files import say

PREFIX = "hf:"
DEFAULT_REVISION = "main"
_REPO = re.compile(r"(?P<repo>[\w\-][\w.\-]*/[\w\-][\w.\-]*)(@(?P<revision>[\w][\w.\-/]*))?", re.ASCII)
_SMALL = (*folder.SMALL_FILES, *ctranslate2.VOCABULARIES, "README.md")
_SHARD = re.compile(r"(model|pytorch_model)-\d+-of-\d+\.(safetensors|bin)")


@dataclass(frozen=True)
class Reference:
    """A repository at a revision (a branch, a tag or a commit)."""

    repo: str
    revision: str

    def __str__(self) -> str:
        return self.repo if self.revision == DEFAULT_REVISION else f"{self.repo}@{self.revision}"


def parse(spec: str) -> Reference | None:
    """What a spec names on the Hub, or None when it has not that form."""
    match = _REPO.fullmatch(spec.removeprefix(PREFIX))
    return Reference(match["repo"], match["revision"] or DEFAULT_REVISION) if match else None


def open_source(spec: str, *, offline: bool = False) -> Checkpoint:
    """The model in a repository, fetched unless the cache has it; without a network, what the cache has."""
    from huggingface_hub import constants

    reference = parse(spec)
    if reference is None:
        raise SourceError(f"{spec!r} is not a name on the Hub; expected OWNER/NAME or OWNER/NAME@REVISION")
    offline = offline or constants.HF_HUB_OFFLINE
    snapshot = cached(reference) if offline else fetch(reference)
    try:
        opened = layouts.open_folder(snapshot)
    except SourceError as error:
        raise SourceError(f"{reference}{' in the Hub cache' if offline else ''}: {error}") from None
    return replace(opened, spec=spec, name=reference.repo.partition("/")[2], revision=snapshot.name)


def fetch(reference: Reference) -> Path:
    """The snapshot folder of `reference`, named by its commit, with the needed files as they are now."""
    from huggingface_hub import HfApi, errors, snapshot_download

    # A failed connection is an error of the HTTP library, which differs between versions of huggingface_hub.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        info = HfApi().model_info(reference.repo, revision=reference.revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        needed = select(reference, sorted(sizes))
        _announce(reference, info.sha, {name: sizes[name] for name in needed})
        with _progress_on_terminals_only():
            return Path(snapshot_download(reference.repo, revision=reference.revision, allow_patterns=needed))
    except (errors.HfHubHTTPError, errors.HFValidationError) as error:
        raise _explain(reference, error) from None
    except (HTTPError, ConnectionError, TimeoutError, errors.LocalEntryNotFoundError) as error:
        say(f"cannot reach the Hub ({_first_line(error)}), looking for {reference} in the cache")
        return cached(reference, because="the Hub cannot be reached")


def cached(reference: Reference, because: str = "this run is offline") -> Path:
    """The snapshot folder of `reference` if the cache has one; whether it is complete the layout will say."""
    from huggingface_hub import constants, errors, snapshot_download

    try:
        found = snapshot_download(
            reference.repo, revision=reference.revision, allow_patterns=[folder.CONFIG], local_files_only=True
        )
    except (errors.LocalEntryNotFoundError, errors.HFValidationError):
        command = f"hf download {reference.repo}" + (
            "" if reference.revision == DEFAULT_REVISION else f" --revision {reference.revision}"
        )
        raise SourceError(
            f"{reference} is not in the Hub cache ({constants.HF_HUB_CACHE}) and {because}; "
            f"with a network, compile once or run: {command}"
        ) from None
    return Path(found)


def select(reference: Reference, files: Sequence[str]) -> list[str]:
    """Of a repository's files those that a layout reads, with one set of weights as `folder` prefers them."""
    small = [name for name in files if name in _SMALL]
    weights = next((name for name in folder.WEIGHTS if name in files), None)
    if weights is None and ctranslate2.MODEL in files:
        weights = ctranslate2.MODEL
    if weights is None:
        raise SourceError(f"{reference} on the Hub holds no model that is read; looked for {layouts.looked_for()}")
    if not weights.endswith(".index.json"):
        return [*small, weights]
    kind = weights.removesuffix(".index.json").rpartition(".")[2]
    return [*small, weights, *(name for name in files if _SHARD.fullmatch(name) and name.endswith(kind))]


def _announce(reference: Reference, commit: str | None, sizes: Mapping[str, int]) -> None:
    from huggingface_hub import try_to_load_from_cache

    missing = [
        name for name in sizes if not isinstance(try_to_load_from_cache(reference.repo, name, revision=commit), str)
    ]
    if missing:
        megabytes = sum(sizes[name] for name in missing) / 1e6
        say(f"downloading {len(missing)} files of {reference} from the Hub, {megabytes:.0f} MB")


@contextmanager
def _progress_on_terminals_only() -> Iterator[None]:
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    hide = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()


def _explain(reference: Reference, error: Exception) -> SourceError:
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{reference.repo}"
    if isinstance(error, errors.GatedRepoError):  # a kind of RepositoryNotFoundError, so it comes first
        return SourceError(f"{reference} is gated; ask for access at {page}, then log in with: hf auth login")
    if isinstance(error, errors.RepositoryNotFoundError):
        return SourceError(
            f"there is no {reference.repo} on the Hub, or it is private; check the name, or: hf auth login"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return SourceError(f"{reference.repo} has no revision {reference.revision!r}; see {page}/commits/main")
    return SourceError(f"the Hub did not give {reference}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
