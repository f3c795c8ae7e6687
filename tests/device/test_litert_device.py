"""The built wheel with the extra `litert`, in an environment without torch: a bundle for LiteRT hears and says."""

from pathlib import Path

import pytest
from device_case import Device
from litert_case import make_speech_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Whisper, which says something of no sense."""
    return make_speech_bundle(tmp_path_factory.mktemp("litert") / "random.svb", "int8")


def test_without_the_extra_the_error_says_what_to_install(device: Device, bundle: Path) -> None:
    done = device.run("python", "-c", f"import sottovoce; sottovoce.Transcriber({str(bundle)!r}).load()")
    assert done.returncode == 1
    assert "needs litert, which is not installed: pip install 'sottovoce[litert]'" in done.stderr


def test_with_it_audio_is_heard_and_nothing_of_the_host_is_loaded(make_device: object, bundle: Path) -> None:
    assert callable(make_device)
    device: Device = make_device(extra="[litert]")
    code = f"""
import sys, numpy, sottovoce
options = dict(temperature=0, vad_filter=False)
segments, info = sottovoce.Transcriber({str(bundle)!r}).transcribe(numpy.zeros(16000, numpy.float32), **options)
print(len(list(segments)) >= 0, info.duration)
host = {{"torch", "transformers", "onnx", "tokenizers", "sottovoce_compiler", "tensorflow"}}
assert not host & set(sys.modules), host & set(sys.modules)
"""
    assert device.python(code).split() == ["True", "1.0"]
