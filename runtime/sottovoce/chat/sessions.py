"""A conversation with the engine's cache in one file, so that it goes on after a restart where it stopped.

Knows the file's layout and what may be believed of it; knows neither engines nor templates.

Layout, little endian: MAGIC; version, u32; header's length, u32; header, JSON; the cache's tokens, u32 each; messages,
JSON; the engine's state; SHA-256 of all that, where each half of the state (the first has half its bytes, rounded down)
is stood for by its own SHA-256, so that two threads can hash it. Version 1 had the state itself there. A session is
private text: only its owner may read the file.
"""

import hashlib
import json
import os
import stat
import struct
import tempfile
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from sottovoce.chat.types import Message
from sottovoce.errors import InputError

MAGIC = b"SVCHAT\r\n"
VERSION = 2
MAX_HEADER_BYTES = 1 << 16
MAX_MESSAGE_BYTES = 16 << 20
MAX_TOKENS = 1 << 22
_CHUNK = 1 << 20  # bytes, of a part that is checked and not kept
_HEAD = struct.Struct("<8sII")
_DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class Session:
    """What a file holds. `engine` is `ChatEngine.name`; `model` identifies the weights with all that changes the cache:
    adapters and their scales, the context's settings. `tokens` are those that `state` was saved with."""

    engine: str
    model: str
    messages: tuple[Message, ...]
    tokens: tuple[int, ...]
    state: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Present:
    """What a session must fit: the loaded engine's name, model, vocabulary (tokens) and context (positions)."""

    engine: str
    model: str
    vocabulary: int
    context: int


def save_session(path: Path, session: Session) -> None:
    """Write the file whole or not at all, mode 0600. Raises InputError where it cannot be written or is too long."""
    tokens = np.asarray(session.tokens, "<u4").tobytes()
    try:
        messages = json.dumps([dict(one) for one in session.messages]).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the messages cannot be saved, they are not JSON: {error}") from error
    if len(messages) > MAX_MESSAGE_BYTES or len(session.state) > _most_state(len(session.tokens)):
        raise InputError(
            f"the conversation is too long to save: {len(messages)} bytes of text, {len(session.state)} of cache; "
            f"{MAX_MESSAGE_BYTES} and {_most_state(len(session.tokens))} are possible"
        )
    lengths = {"tokens": len(session.tokens), "messages": len(messages), "state": len(session.state)}
    header = json.dumps({"engine": session.engine, "model": session.model, **lengths}).encode()
    parts = [_HEAD.pack(MAGIC, VERSION, len(header)), header, tokens, messages, session.state]
    digest = hashlib.sha256(b"".join(parts[:-1]))
    half = len(session.state) // 2
    for piece in (memoryview(session.state)[:half], memoryview(session.state)[half:]):
        digest.update(hashlib.sha256(piece).digest())
    try:
        _write(path, [*parts, digest.digest()])
    except OSError as error:
        raise InputError(f"the session cannot be saved as {path}: {error.strerror or error}") from error


def _most_state(tokens: int) -> int:
    """Bytes of cache that so many tokens can need: 1 MiB each is twice what a model of 7 billion weights takes."""
    return (tokens << 20) + (64 << 20)


def _write(path: Path, parts: Sequence[bytes | memoryview]) -> None:
    handle, name = tempfile.mkstemp(prefix=".session-", dir=path.parent)  # of mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def load_session(path: Path, present: Present) -> Session:
    """Read and check all of a file. Raises InputError naming what is wrong with it.

    A session of another model is refused. One of another engine, or another version of it, or with more tokens than the
    present context has positions, keeps its messages and comes without tokens and state: the next prompt is then
    evaluated from its beginning.
    """
    try:
        with open(path, "rb", opener=_no_waiting) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise InputError(f"{path} is not a file")
            return _Reader(file, path, facts.st_size).session(present)
    except OSError as error:
        raise InputError(f"the session {path} cannot be read: {error.strerror or error}") from error


def _no_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # else a pipe of that name waits for a writer


class _Reader:
    """One pass over a file, every part bounded before it is read, the digest before anything is believed."""

    def __init__(self, file: BufferedReader, path: Path, size: int) -> None:
        self._file, self._path, self._left = file, path, size
        self._digest = hashlib.sha256()
        self._version = VERSION

    def session(self, present: Present) -> Session:
        header = self._header()
        tokens, messages, state = self._lengths(header)
        engine, model = header.get("engine"), header.get("model")
        if not isinstance(model, str) or model != present.model:
            raise InputError(f"the session {self._path} was saved with another model or adapter")
        fits = engine == present.engine and tokens <= present.context
        ids = np.frombuffer(self._read(4 * tokens), "<u4")
        text = self._read(messages)
        cache = self._state(state, keep=fits)
        if self._file.read(_DIGEST_BYTES + 1) != self._digest.digest():
            raise self._wrong("its checksum does not hold")
        if ids.size and int(ids.max()) >= present.vocabulary:
            raise self._wrong(f"it has the token {ids.max()}, the model has {present.vocabulary}")
        known = tuple(ids.tolist()) if fits else ()
        return Session(present.engine, model, self._messages(text), known, cache)

    def _lengths(self, header: dict[str, Any]) -> tuple[int, int, int]:
        counts = [header.get(name) for name in ("tokens", "messages", "state")]
        tokens, messages, state = (one if type(one) is int and one >= 0 else -1 for one in counts)
        fine = 0 <= tokens <= MAX_TOKENS and 0 <= messages <= MAX_MESSAGE_BYTES and 0 <= state <= _most_state(tokens)
        if not fine:
            raise self._wrong("its header counts what cannot be")
        if 4 * tokens + messages + state + _DIGEST_BYTES != self._left:
            raise self._wrong("its length is not the one it names; it was cut or changed")
        return tokens, messages, state

    def _header(self) -> dict[str, Any]:
        if self._left < _HEAD.size + _DIGEST_BYTES:
            raise self._wrong("it is too short to be one")
        magic, version, length = _HEAD.unpack(self._read(_HEAD.size))
        if magic != MAGIC:
            raise self._wrong("it is no session of a chat")
        if not 1 <= version <= VERSION:
            raise self._wrong(f"it has format {version}, this version of sottovoce reads 1 to {VERSION}")
        self._version = version
        if length > min(MAX_HEADER_BYTES, self._left - _DIGEST_BYTES):
            raise self._wrong(f"its header is {length} bytes long")
        header = self._json(self._read(length))
        if not isinstance(header, dict):
            raise self._wrong("its header is no JSON object")
        return header

    def _messages(self, text: bytes) -> tuple[Message, ...]:
        messages = self._json(text)
        if not isinstance(messages, list) or not all(
            isinstance(one, dict) and isinstance(one.get("role"), str) for one in messages
        ):
            raise self._wrong("its messages are no list of messages")
        return tuple(messages)

    def _json(self, text: bytes) -> Any:
        try:
            return json.loads(text.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError) as error:
            raise self._wrong("it holds JSON that cannot be read") from error

    def _read(self, length: int) -> bytes:
        part = self._file.read(length)
        if len(part) != length:
            raise self._wrong("it is shorter than it says")
        self._left -= length
        self._digest.update(part)
        return part

    def _state(self, length: int, *, keep: bool) -> memoryview:
        """The last part, by far the largest; nothing of it unless it is to be kept. Other threads hash it while it is
        read, which takes less time than hashing."""
        first = length if self._version == 1 else length // 2
        halves = [(first, self._digest if self._version == 1 else hashlib.sha256())]
        if self._version > 1:
            halves.append((length - first, hashlib.sha256()))
        part = np.empty(length if keep else 0, np.uint8).data  # NumPy asks for huge pages, which bytes do not have
        with ExitStack() as threads:
            for index, (size, digest) in enumerate(halves):
                if keep:
                    beside = threads.enter_context(ThreadPoolExecutor(1))
                    self._read_into(part[index * first :][:size], digest, beside)
                else:
                    self._skip(size, digest)
        for _, digest in halves if self._version > 1 else ():
            self._digest.update(digest.digest())
        return part

    def _read_into(self, part: memoryview, digest: "hashlib._Hash", beside: Executor) -> None:
        for start in range(0, len(part), _CHUNK):
            piece = part[start : start + _CHUNK]
            if self._file.readinto(piece) != len(piece):
                raise self._wrong("it is shorter than it says")
            beside.submit(digest.update, piece)

    def _skip(self, length: int, digest: "hashlib._Hash") -> None:
        while length:
            piece = self._file.read(min(length, _CHUNK))
            if not piece:
                raise self._wrong("it is shorter than it says")
            digest.update(piece)
            length -= len(piece)

    def _wrong(self, reason: str) -> InputError:
        return InputError(f"{self._path} cannot be used as a session: {reason}")
