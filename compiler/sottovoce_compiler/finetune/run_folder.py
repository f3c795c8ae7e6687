"""Where a run keeps itself while it trains: a folder beside the adapter's, which is gone once the adapter is there.

Holds the settings in effect, the checkpoint and the log. Knows their names and who may replace what; nothing of what
they say.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sottovoce.errors import InputError, SottovoceError
from sottovoce_compiler.finetune.adapter_folder import SETTINGS
from sottovoce_compiler.finetune.settings import PATHS, Settings, from_values, read_config
from sottovoce_compiler.finetune.trainer import checkpoint as saved
from sottovoce_compiler.finetune.trainer.checkpoint import Checkpoint
from sottovoce_compiler.finetune.trainer.errors import CheckpointError
from sottovoce_compiler.sources.peft import CONFIG
from sottovoce_compiler.staging import staged_file

ENDING = ".training"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of the run that makes the adapter at `output`, and how users write that."""

    output: Path
    written: Path

    @property
    def path(self) -> Path:
        """It may not be there."""
        return self.output.with_name(self.output.name + ENDING)

    def check_new(self) -> None:
        """Raises InputError where an unfinished run is there, which a new one would overwrite."""
        if (self.path / saved.FILE).exists():
            raise InputError(f"{self.path} holds unfinished training; go on with --resume, or delete that folder")

    def checkpoint(self) -> Checkpoint:
        """Of the unfinished run. Raises CheckpointError where there is none."""
        if not (self.path / saved.FILE).exists():
            there = "is finished" if (self.output / CONFIG).is_file() else "was never begun"
            raise CheckpointError(
                f"nothing to resume: {self.written} {there} (no {self.path.name}/{saved.FILE}); "
                "leave --resume out, or train on with --from-adapter"
            )
        return saved.load(self.path)

    def settings(self, config: Path | None, overrides: Mapping[str, Any], *, resume: bool) -> Settings:
        """Those of the command line, over those of a config file, or else over those of the run that is resumed."""
        own = self.path / SETTINGS
        file = config if config is not None or not (resume and own.is_file()) else own
        values = {} if file is None else read_config(file)
        return from_values(values, "" if file is None else str(file), overrides)

    def open(self, settings: Settings) -> None:
        """Makes it, with the settings in effect."""
        try:
            self.path.mkdir(exist_ok=True)
            write_settings(self.path, settings)
        except OSError as error:
            raise SottovoceError(f"{self.path} cannot be written: {error.strerror}") from error

    def remove(self) -> None:
        """Everything in it; what cannot be removed stays."""
        shutil.rmtree(self.path, ignore_errors=True)

    def remove_if_empty(self) -> None:
        """Where nothing was trained yet, nothing is left behind."""
        if not (self.path / saved.FILE).exists():
            self.remove()


def write_settings(folder: Path, settings: Settings) -> None:
    """The settings in effect, as a file that `--config` takes."""
    with staged_file(folder / SETTINGS) as file:
        file.write((json.dumps(portable(settings), indent=2, ensure_ascii=False) + "\n").encode())


def portable(settings: Settings) -> dict[str, Any]:
    """The settings by name, paths in them absolute, so that they mean the same wherever the file lies."""
    values = settings.to_json()
    for key in PATHS:
        if values[key] is not None:
            values[key] = str(Path(values[key]).expanduser().resolve())
    return values
