"""Every error the runtime raises on purpose, with the exit code the command line gives it.

Knows nothing of bundles or audio: a message is written where the offending value is known, and says the way out.
Each error is ours *and* a builtin, so that code which does not know this package can still catch it.
"""


class SottovoceError(Exception):
    """Base of every deliberate error; its message is one or two lines meant for the user."""

    exit_code = 1


class InputError(SottovoceError, ValueError):
    """A value the user gave cannot be used: an option, a language, a file."""

    exit_code = 2


class AudioError(InputError):
    """The audio is missing, empty, damaged or in a format that nothing here reads."""


class BundleError(SottovoceError, ValueError):
    """The bundle is damaged, unsafe, or made for another version of the runtime."""

    exit_code = 2


class MissingExtraError(SottovoceError, ImportError):
    """An optional dependency is needed and absent; the message has the pip command that adds it."""

    exit_code = 2


class EngineError(SottovoceError, RuntimeError):
    """The engine under us failed: a session could not be made, or a run broke off."""


class IncompleteOutputError(EngineError):
    """The token limit was reached before the answer was a whole JSON value; `partial` is the text so far."""

    def __init__(self, message: str, partial: str) -> None:
        super().__init__(message)
        self.partial = partial
