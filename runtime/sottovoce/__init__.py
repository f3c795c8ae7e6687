"""Speech recognition and chat that stay on the device: compiled bundles in, words out.

Names are looked up when first used, so that `import sottovoce` costs next to nothing and brings in neither
NumPy nor an engine. The table below is all that is public here.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sottovoce.chat.chat import Chat as Chat
    from sottovoce.chat.options import ChatOptions as ChatOptions
    from sottovoce.chat.types import Completion as Completion
    from sottovoce.chat.types import Delta as Delta
    from sottovoce.chat.types import ToolCall as ToolCall
    from sottovoce.chat.types import Usage as Usage
    from sottovoce.errors import AudioError as AudioError
    from sottovoce.errors import BundleError as BundleError
    from sottovoce.errors import EngineError as EngineError
    from sottovoce.errors import IncompleteOutputError as IncompleteOutputError
    from sottovoce.errors import InputError as InputError
    from sottovoce.errors import MissingExtraError as MissingExtraError
    from sottovoce.errors import SottovoceError as SottovoceError
    from sottovoce.streaming.chunks import AudioChunk as AudioChunk
    from sottovoce.streaming.chunks import AudioGap as AudioGap
    from sottovoce.streaming.events import AudioDropped as AudioDropped
    from sottovoce.streaming.events import Committed as Committed
    from sottovoce.streaming.events import Event as Event
    from sottovoce.streaming.events import Partial as Partial
    from sottovoce.streaming.events import SpeechEnded as SpeechEnded
    from sottovoce.streaming.events import SpeechStarted as SpeechStarted
    from sottovoce.streaming.options import StreamOptions as StreamOptions
    from sottovoce.streaming.session import StreamSession as StreamSession
    from sottovoce.transcriber import Transcriber as Transcriber
    from sottovoce.types import Segment as Segment
    from sottovoce.types import TranscribeOptions as TranscribeOptions
    from sottovoce.types import TranscriptionInfo as TranscriptionInfo
    from sottovoce.types import Word as Word

__version__ = "0.1.0"

# ONNX Runtime from 1.29 on gives every user a number and tells its maker what is run, unless this is set before it is
# first imported. Nothing leaves the device here: so this is the one thing that happens at import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOME = {  # public name -> module
    "Transcriber": "transcriber",
    "Segment": "types",
    "Word": "types",
    "TranscriptionInfo": "types",
    "TranscribeOptions": "types",
    "StreamOptions": "streaming.options",
    "SpeechStarted": "streaming.events",
    "Partial": "streaming.events",
    "Committed": "streaming.events",
    "SpeechEnded": "streaming.events",
    "AudioDropped": "streaming.events",
    "Event": "streaming.events",
    "AudioChunk": "streaming.chunks",
    "AudioGap": "streaming.chunks",
    "StreamSession": "streaming.session",
    "Chat": "chat.chat",
    "ChatOptions": "chat.options",
    "Delta": "chat.types",
    "Completion": "chat.types",
    "ToolCall": "chat.types",
    "Usage": "chat.types",
    "SottovoceError": "errors",
    "InputError": "errors",
    "AudioError": "errors",
    "BundleError": "errors",
    "MissingExtraError": "errors",
    "EngineError": "errors",
    "IncompleteOutputError": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sottovoce' has no attribute {name!r}")
    value = getattr(import_module(f"sottovoce.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
