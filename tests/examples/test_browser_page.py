"""The browser's example in a real browser: the page as a user has it, over the bundles that a device has.

`make test-browser` installs what these tests need.
"""

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chat_bundle_case import chat_fields, make_chat_bundle
from chromium import Page, find_chromium, open_page

import sottovoce
from sottovoce.bundle import open_bundle
from sottovoce_compiler.pack import write_bundle

EXAMPLE = Path(__file__).parents[2] / "examples" / "browser"

pytestmark = [
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium: apt install chromium"),
    pytest.mark.skipif(
        not (EXAMPLE / "vendor" / "ort.wasm.min.mjs").is_file(),
        reason="needs onnxruntime-web: in examples/browser, npm ci and npm run vendor",
    ),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A static server, as plain as they come: no headers of its own."""

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(EXAMPLE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with open_page(tmp_path / "profile") as page:
        yield page


def open_speech(page: Page, bundle: Path) -> None:
    page.wait("document.querySelector('#speech-bundle') !== null")
    page.choose("#speech-bundle", bundle)
    page.wait("!document.querySelector('#record').disabled")


def transcript(page: Page, recording: Path) -> str:
    page.choose("#audio-file", recording)
    page.wait("document.querySelector('#speech-note').textContent.includes('heard in')", 120)
    assert page.evaluate("document.querySelector('#speech-error').hidden")
    spoken = page.evaluate("[...document.querySelectorAll('#segments span')].map((one) => one.textContent)")
    return " ".join(spoken)


def words(text: str) -> list[str]:
    """A comma more or less is within what rounding decides, on a device too (docs/browser.md)."""
    return re.findall(r"[\w']+", text.lower())


def complaints(page: Page) -> list[str]:
    """But for bundles that do not lie beside the page, for which it asks."""
    return [one for one in page.complaints if "/bundles/" not in one]


@pytest.mark.weights
def test_a_recording_has_the_devices_words_and_the_page_needs_no_network_afterwards(
    tiny_bundle: Path, page: Page
) -> None:
    from sottovoce_compiler.report.builtin import builtin_set

    clips = {clip.name: clip.file for clip in builtin_set().clips}
    recording = next(file for name, file in clips.items() if name.startswith("two-cities-32"))
    segments, _ = sottovoce.Transcriber(tiny_bundle, threads=1).transcribe(recording)
    wanted = words(" ".join(segment.text for segment in segments))
    assert len(wanted) > 15
    with serving() as site:
        page.go(site)
        open_speech(page, tiny_bundle)
        assert words(transcript(page, recording)) == wanted
        page.wait("document.querySelector('#offline').textContent.startsWith('Works without')")
    page.complaints.clear()

    page.call("Page.reload")  # and there is no server any more
    page.wait("document.querySelector('#record')?.disabled === false")  # the bundle is still there
    assert page.evaluate("globalThis.crossOriginIsolated"), "threads are possible from the second visit on"
    assert words(transcript(page, recording)) == wanted


@pytest.mark.weights
def test_the_microphone_is_heard_and_silence_has_no_words(tiny_bundle: Path, site: str, page: Page) -> None:
    page.go(site)
    open_speech(page, tiny_bundle)
    page.evaluate("document.querySelector('#record').click()")
    page.wait("document.querySelector('#record-label').textContent === 'Stop 0:01'")
    page.evaluate("document.querySelector('#record').click()")
    # Chromium's own microphone beeps once a second.
    assert page.wait("document.querySelector('#speech-note').textContent").endswith("nothing was said")
    assert not complaints(page)


def test_what_is_wrong_is_said_and_the_page_goes_on(site: str, page: Page, tmp_path: Path) -> None:
    page.go(site)
    damaged = chatting_bundle(tmp_path)
    page.wait("document.querySelector('#speech-bundle') !== null")
    page.choose("#speech-bundle", damaged)
    said = page.wait("document.querySelector('#speech-model .error')?.textContent")
    assert "a bundle for chat" in said
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "damaged.svb").write_bytes(data)
    page.evaluate("document.querySelector('#tab-chat').click()")
    page.wait("document.querySelector('#chat-bundle') !== null")
    page.choose("#chat-bundle", tmp_path / "damaged.svb")
    said = page.wait("document.querySelector('#chat-model .error')?.textContent")
    assert "weights.bin is damaged: its SHA-256 is" in said
    assert page.evaluate("document.querySelector('#send').disabled")


def test_the_page_can_send_nothing_to_another_place(site: str, page: Page) -> None:
    send = "fetch('{}style.css', {{ mode: 'no-cors' }}).then(() => 'sent', () => 'refused')"
    with serving() as elsewhere:
        page.go(site)
        assert page.evaluate(send.format(site)) == "sent"
        assert page.evaluate(send.format(elsewhere)) == "refused"


def chatting_bundle(folder: Path) -> Path:
    template = b"{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
    plain = open_bundle(make_chat_bundle(folder / "plain.svb"))
    files: dict[str, bytes | Path] = {name: plain.read(name) for name in plain.manifest.files}
    generation = {"bos": 1, "adds_bos": True, "ends": [2], "special_tokens": {"bos_token": "<s>"}}
    return write_bundle(
        folder / "nano.svb", chat_fields(generation=generation), {**files, "chat_template.jinja": template}
    )


def test_an_answer_is_the_devices_token_for_token(site: str, page: Page, tmp_path: Path) -> None:
    bundle = chatting_bundle(tmp_path)
    asked = [{"role": "user", "content": "What is <s> worth? Grüße!"}]
    wanted = sottovoce.Chat(bundle, threads=1).chat(asked, temperature=0.0, max_tokens=40)
    page.go(f"{site}#chat")
    page.wait("document.querySelector('#chat-bundle') !== null")
    page.choose("#chat-bundle", bundle)
    page.wait("!document.querySelector('#message').disabled")
    page.evaluate(
        f"""for (const [id, value] of [['temperature', 0], ['max-tokens', 40], ['message', {asked[0]["content"]!r}]])
              document.querySelector(`#${{id}}`).value = value
            document.querySelector('#composer').requestSubmit()"""
    )
    page.wait("document.querySelector('#log small') !== null")
    said = page.evaluate("document.querySelector('#log article:last-child').firstChild.textContent")
    assert said == wanted.text
    note = page.evaluate("document.querySelector('#log small').textContent")
    assert note.startswith(f"{wanted.usage.completion_tokens} tokens")
    assert not complaints(page)
