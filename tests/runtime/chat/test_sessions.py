import hashlib
import json
import os
import stat
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sottovoce.chat.sessions import MAGIC, Present, Session, load_session, save_session
from sottovoce.errors import InputError

PRESENT = Present("llama.cpp b1", "abc+lora", vocabulary=1000, context=64)
SESSION = Session(
    PRESENT.engine,
    PRESENT.model,
    (
        {"role": "user", "content": "Grüße 👋 \ud800"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    ),
    (1, 999, 3),
    bytes(range(256)) * 40,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "talk.session"
    save_session(path, SESSION)
    return path


def sealed(header: bytes, body: bytes = b"", magic: bytes = MAGIC, version: int = 1) -> bytes:
    data = struct.pack("<8sII", magic, version, len(header)) + header + body
    return data + hashlib.sha256(data).digest()


def with_header(**changed: Any) -> bytes:
    """A file whose checksum holds and whose header is changed."""
    tokens, messages = struct.pack("<3I", *SESSION.tokens), json.dumps(SESSION.messages).encode()
    header = {"engine": SESSION.engine, "model": SESSION.model, "tokens": 3, "messages": len(messages), "state": 3}
    return sealed(json.dumps({**header, **changed}).encode(), tokens + messages + b"abc")


def test_what_was_saved_is_loaded(saved: Path) -> None:
    assert load_session(saved, PRESENT) == SESSION
    assert [one.name for one in saved.parent.iterdir()] == [saved.name]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_only_the_owner_may_read_it_also_where_everyone_could_before(saved: Path) -> None:
    saved.chmod(0o666)
    save_session(saved, SESSION)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600


def test_another_model_is_refused_by_name_of_the_reason(saved: Path) -> None:
    with pytest.raises(InputError, match="another model or adapter"):
        load_session(saved, replace(PRESENT, model="abc"))


@pytest.mark.parametrize("present", [replace(PRESENT, engine="llama.cpp b2"), replace(PRESENT, context=2)])
def test_with_another_engine_or_less_room_the_messages_stay_and_the_cache_goes(saved: Path, present: Present) -> None:
    session = load_session(saved, present)
    assert session.messages == SESSION.messages
    assert (session.tokens, session.state, session.engine) == ((), b"", present.engine)


@pytest.mark.parametrize("present", [PRESENT, replace(PRESENT, engine="llama.cpp b2")])
def test_no_byte_can_be_changed_and_no_piece_cut_off_unnoticed(saved: Path, present: Present) -> None:
    data = saved.read_bytes()
    for at in [*range(60), *range(60, len(data), 211), len(data) - 1]:
        saved.write_bytes(data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :])
        with pytest.raises(InputError):
            load_session(saved, present)
        saved.write_bytes(data[:at])
        with pytest.raises(InputError):
            load_session(saved, present)
    saved.write_bytes(data + b"\0")
    with pytest.raises(InputError):
        load_session(saved, present)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too short"),
        (b"GGUF" + bytes(200), "no session"),
        (sealed(b"{}", version=3), "format 3"),
        (sealed(b"[]"), "no JSON object"),
        (sealed(b"{"), "JSON"),
        (sealed(b"[" * 60_000), "JSON"),
        (sealed(b"{}"), "counts"),
        (struct.pack("<8sII", MAGIC, 1, 1 << 31) + bytes(100), "header is 2147483648 bytes"),
        (with_header(tokens=1 << 40), "counts"),
        (with_header(tokens=-1), "counts"),
        (with_header(tokens=True), "counts"),
        (with_header(messages=1 << 30), "counts"),
        (with_header(state=1 << 60), "counts"),
        (with_header(state=4), "length"),
        (with_header(tokens=2, state=7), "messages are no list|JSON"),
        (with_header(model=None), "another model"),
    ],
)
def test_a_hostile_file_is_refused_before_anything_is_allocated(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "bad"
    path.write_bytes(data)
    with pytest.raises(InputError, match=reason):
        load_session(path, PRESENT)


def test_a_token_that_the_model_lacks_is_refused(saved: Path) -> None:
    with pytest.raises(InputError, match="token 999, the model has 999"):
        load_session(saved, replace(PRESENT, vocabulary=999))


@pytest.mark.parametrize("messages", [{"role": "user"}, [1], [{"content": "x"}], "x", [{"role": 1}]])
def test_messages_that_are_none_are_refused(tmp_path: Path, messages: Any) -> None:
    text = json.dumps(messages).encode()
    header = {"engine": "e", "model": PRESENT.model, "tokens": 0, "messages": len(text), "state": 0}
    (tmp_path / "bad").write_bytes(sealed(json.dumps(header).encode(), text))
    with pytest.raises(InputError, match="no list of messages"):
        load_session(tmp_path / "bad", PRESENT)


@pytest.mark.parametrize("name", [".", "missing", "missing/file"])
def test_a_path_that_is_no_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be read|not a file"):
        load_session(tmp_path / name, PRESENT)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a file"):
        load_session(tmp_path / "pipe", PRESENT)


def test_where_it_cannot_be_written_the_error_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be saved as .*No such"):
        save_session(tmp_path / "no" / "where", SESSION)
    with pytest.raises(InputError, match="not JSON"):
        save_session(tmp_path / "talk", replace(SESSION, messages=({"role": "user", "content": b"x"},)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_save_that_breaks_off_leaves_the_last_one_whole(
    saved: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, where: str
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, where, fails)
    with pytest.raises((InputError, KeyboardInterrupt)):
        save_session(saved, replace(SESSION, tokens=()))
    assert load_session(saved, PRESENT) == SESSION
    assert [one.name for one in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("flipped", [0, 1 << 20, (3 << 20) + 4])
def test_a_state_of_many_pieces_comes_back_whole_and_a_flipped_bit_anywhere_in_it_is_refused(
    flipped: int, tmp_path: Path
) -> None:
    state = np.random.default_rng(3).bytes((3 << 20) + 5)
    path = tmp_path / "talk.session"
    save_session(path, replace(SESSION, state=state))
    assert bytes(load_session(path, PRESENT).state) == state
    data = bytearray(path.read_bytes())
    data[len(data) - 32 - len(state) + flipped] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="its checksum does not hold"):
        load_session(path, PRESENT)


def test_a_file_of_version_1_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "talk.session"
    path.write_bytes(with_header())
    assert bytes(load_session(path, PRESENT).state) == b"abc"
    assert load_session(path, replace(PRESENT, engine="another")).state == b""


@pytest.mark.parametrize("size", [0, 1, 2, (2 << 20) + 1])
def test_the_digest_is_of_everything_with_a_digest_in_place_of_each_half_of_the_state(
    size: int, tmp_path: Path
) -> None:
    state = np.random.default_rng(size).bytes(size)
    save_session(tmp_path / "talk.session", replace(SESSION, state=state))
    data = (tmp_path / "talk.session").read_bytes()
    before = data[: len(data) - size - 32]
    halves = hashlib.sha256(state[: size // 2]).digest() + hashlib.sha256(state[size // 2 :]).digest()
    assert data[-32:] == hashlib.sha256(before + halves).digest()
    assert bytes(load_session(tmp_path / "talk.session", PRESENT).state) == state
