"""Against a server on this machine that speaks as much of the Hub's protocol as a download needs.

huggingface_hub reads its settings from the environment when it is imported: each case is its own process.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from sottovoce_compiler.sources import SourceError
from sottovoce_compiler.sources.hub import Reference, parse, select

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SCRIPT = """
import json, sys
from sottovoce_compiler.sources import SourceError, resolve
try:
    found = resolve(sys.argv[1], offline=sys.argv[2] == "offline")
    shape = found.tensors.load("model.encoder.conv1.weight").shape
    kept = dict(name=found.name, spec=found.spec, revision=found.revision, licence=found.licence, shape=shape)
    print(json.dumps(dict(kept, tokens=len(found.vocabulary), files=sorted(found.sha256))))
except SourceError as error:
    print(json.dumps({"error": str(error)}))
"""


@dataclass
class Hub:
    """Repositories as folders, and what was asked of the server."""

    folders: dict[str, Path]
    url: str = ""
    fetched: list[str] = field(default_factory=list)
    cache: Path = Path()

    def run(self, spec: str, *, offline: bool = False, **env: str) -> dict[str, object]:
        settings = {"HF_ENDPOINT": self.url, "HF_HOME": str(self.cache), "HF_HUB_DISABLE_XET": "1", **env}
        paths = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-c", SCRIPT, spec, "offline" if offline else "online"]
        environment = {**os.environ, "PYTHONPATH": paths, **settings}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        answer: dict[str, object] = json.loads(done.stdout)
        return answer | {"stderr": done.stderr}


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def refuse(self, status: int, code: str) -> None:
            self.answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            is_api = parts[:2] == ["api", "models"]
            owner, name, what, revision, *rest = [*(parts[2:] if is_api else parts), "", "", ""]
            repo = f"{owner}/{name}"
            if repo == "gated/model":
                return self.refuse(403, "GatedRepo")
            if repo == "private/model":
                return self.refuse(401, "RepoNotFound")
            if repo not in hub.folders:
                return self.refuse(404, "RepoNotFound")
            if revision not in ("", "main", "v1", COMMIT):
                return self.refuse(404, "RevisionNotFound")
            files = sorted(path for path in hub.folders[repo].iterdir() if path.is_file())
            if is_api and what == "tree":
                content = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": oid(f)} for f in files]
                return self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})
            if is_api:
                siblings = [{"rfilename": f.name, "size": f.stat().st_size} for f in files]
                info = {"id": repo, "sha": COMMIT, "siblings": siblings}
                return self.answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
            path = hub.folders[repo] / rest[0]
            if not path.is_file():
                return self.refuse(404, "EntryNotFound")
            if self.command == "GET":
                hub.fetched.append(path.name)
            return self.answer(200, path.read_bytes(), {"ETag": f'"{oid(path)}"', "X-Repo-Commit": COMMIT})

        def log_message(self, *args: object) -> None:
            pass

    return Handler


def oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@pytest.fixture
def hub(tmp_path: Path, hf_folder: Path) -> Iterator[Hub]:
    """A Hub with tiny/whisper and files beside the model that nobody needs."""
    for name in (
        "tf_model.h5",
        "flax_model.msgpack",
        "model.fp32-00001-of-00001.safetensors",
        "training.log",
    ):
        (hf_folder / name).write_bytes(b"not needed")
    shutil.copy(hf_folder / "model.safetensors", hf_folder / "pytorch_model.bin")
    hub = Hub({"tiny/whisper": hf_folder}, cache=tmp_path / "hf-home")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_is_fetched_once_with_only_the_files_that_are_needed(hub: Hub) -> None:
    found = hub.run("tiny/whisper")
    assert found["name"] == "whisper" and found["spec"] == "tiny/whisper"
    assert found["revision"] == COMMIT
    assert found["licence"] == "Apache-2.0"
    assert found["shape"] == [32, 8, 3]
    needed = ["README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
    assert sorted(hub.fetched) == needed
    assert "downloading 5 files of tiny/whisper" in str(found["stderr"])
    assert str(found["stderr"]).count("\n") == 1
    again = hub.run("hf:tiny/whisper@main")
    assert again["files"] == found["files"] and again["stderr"] == ""
    assert sorted(hub.fetched) == needed


@pytest.mark.parametrize("how", ["argument", "environment", "no network"])
def test_without_a_network_the_cache_serves(how: str, hub: Hub) -> None:
    first = hub.run("tiny/whisper")
    fetched = list(hub.fetched)
    if how == "argument":
        found = hub.run("tiny/whisper", offline=True, HF_ENDPOINT="http://127.0.0.1:9")
    elif how == "environment":
        found = hub.run("tiny/whisper", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9")
    else:
        found = hub.run("tiny/whisper", HF_ENDPOINT="http://127.0.0.1:9")
        assert "cannot reach the Hub" in str(found["stderr"])
    assert {key: found[key] for key in ("revision", "licence", "files", "tokens")} == {
        key: first[key] for key in ("revision", "licence", "files", "tokens")
    }
    assert hub.fetched == fetched


def test_offline_without_a_cache_says_that_it_must_be_there_and_how(hub: Hub) -> None:
    error = str(hub.run("tiny/whisper@v1", offline=True)["error"])
    assert "tiny/whisper@v1 is not in the Hub cache" in error and str(hub.cache) in error
    assert "this run is offline" in error and "hf download tiny/whisper --revision v1" in error


def test_no_network_and_no_cache_says_so(hub: Hub) -> None:
    error = str(hub.run("tiny/whisper", HF_ENDPOINT="http://127.0.0.1:9")["error"])
    assert "not in the Hub cache" in error and "the Hub cannot be reached" in error


def test_an_interrupted_download_is_not_taken_for_a_model(hub: Hub) -> None:
    hub.run("tiny/whisper")
    [weights] = hub.cache.rglob("snapshots/*/model.safetensors")
    weights.unlink()
    error = str(hub.run("tiny/whisper", offline=True)["error"])
    assert "tiny/whisper in the Hub cache" in error and "model.safetensors" in error


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nobody/nothing", "there is no nobody/nothing on the Hub, or it is private"),
        (
            "private/model",
            "there is no private/model on the Hub, or it is private; check the name, or: hf auth login",
        ),
        ("gated/model", "gated/model is gated; ask for access at "),
        ("tiny/whisper@nowhere", "tiny/whisper has no revision 'nowhere'"),
        ("hf:whisper", "'hf:whisper' is not a name on the Hub; expected OWNER/NAME"),
        ("tiny/bad..name--", "the Hub did not give tiny/bad..name--"),
    ],
)
def test_a_refusal_says_why_and_what_to_do(spec: str, message: str, hub: Hub) -> None:
    error = str(hub.run(spec)["error"])
    assert message in error
    assert "\n" not in error and hub.fetched == []


def test_the_weights_that_are_fetched_are_one_set() -> None:
    where = Reference("a/b", "main")
    index, shards = (
        "model.safetensors.index.json",
        ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
    )
    assert select(where, ["config.json", index, *shards, "pytorch_model.bin"]) == [
        "config.json",
        index,
        *shards,
    ]
    assert select(where, ["config.json", "pytorch_model.bin", "tf_model.h5"]) == [
        "config.json",
        "pytorch_model.bin",
    ]
    assert select(where, ["config.json", "model.bin", "vocabulary.txt"]) == [
        "config.json",
        "vocabulary.txt",
        "model.bin",
    ]
    with pytest.raises(SourceError, match=r"a/b on the Hub holds no model.*looked for"):
        select(where, ["config.json", "model.gguf"])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("openai/whisper-base", Reference("openai/whisper-base", "main")),
        ("hf:openai/whisper-base@v1.0", Reference("openai/whisper-base", "v1.0")),
        ("hf:a/b@refs/pr/1", Reference("a/b", "refs/pr/1")),
        ("a/b@", None),
        ("a", None),
        ("a/b/c", None),
        ("../b", None),
        ("a/b c", None),
    ],
)
def test_a_name_on_the_hub_is_recognised(spec: str, expected: Reference | None) -> None:
    assert parse(spec) == expected
