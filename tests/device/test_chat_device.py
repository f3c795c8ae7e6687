"""The built wheel with the extra `chat-wheel`, in an environment without torch: a model chats."""

import json
from pathlib import Path

import pytest
from device_case import Device
from tiny_gguf import tiny_gguf


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf(tmp_path_factory.mktemp("chat") / "tiny.gguf")


def test_without_the_extra_the_error_says_what_to_install(device: Device, model: Path) -> None:
    done = device.run("sottovoce", "chat", model, "--prompt", "hi")
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'sottovoce[chat-wheel]'" in done.stderr and len(done.stderr.splitlines()) <= 2


def test_a_gguf_file_answers(chat_device: Device, model: Path) -> None:
    done = chat_device.run("sottovoce", "chat", model, "--prompt", "hi", "--max-tokens", "5", "--seed", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 0 < found["usage"]["completion_tokens"] <= 5 and found["engine"].startswith("llama.cpp")


def test_chatting_loads_no_module_of_the_host(chat_device: Device, model: Path) -> None:
    code = f"""
import sys, sottovoce
with sottovoce.Chat({str(model)!r}) as chat:
    print(chat.chat([{{"role": "user", "content": "hi"}}], max_tokens=3, temperature=0).finish_reason)
host = {{"torch", "transformers", "onnx", "gguf", "tokenizers", "sottovoce_compiler", "onnxruntime"}}
assert not host & set(sys.modules), host & set(sys.modules)
"""
    assert chat_device.python(code).strip() in ("stop", "length")
