"""How training ends other than well."""

from sottovoce.errors import InputError, SottovoceError


class TrainingError(SottovoceError, RuntimeError):
    """Training cannot go on; the message says at which step, why, and what is kept."""


class CheckpointError(InputError):
    """A checkpoint is missing, damaged, or of another run."""


class InterruptedTraining(SottovoceError):
    """It was asked to stop, and did, at the end of a step; the message says how to go on."""

    exit_code = 130
