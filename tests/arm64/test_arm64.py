"""The built wheel and its bundles on the boards that are compiled for, each emulated: its processor, its cores, and
where little memory is what it has, its memory. How long it takes says nothing of a board."""

import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from chat_bundle_case import chat_fields, make_chat_bundle
from memory_limit import LimitUnavailable
from tests.arm64.boards import BOARDS, Board
from tests.arm64.emulated import Answer, Emulated

from sottovoce.bundle import open_bundle
from sottovoce_compiler import chat_pipeline
from sottovoce_compiler.families import language_model
from sottovoce_compiler.pack import write_bundle
from sottovoce_compiler.report import chat_golden
from sottovoce_compiler.report.builtin import builtin_set
from sottovoce_compiler.request import Request
from sottovoce_compiler.sources import resolve
from sottovoce_targets import load_target

Boot = Callable[[Board], Emulated]
PI_4, PI_5, ZERO_2W = BOARDS
ZERO_2W_MB = 512
SPOKEN = "heaven"
by_name = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.target)


@pytest.fixture(scope="session")
def boot(emulate: Boot, tiny_bundle_for: Callable[..., Path]) -> Boot:
    """Makes a board with its own speech bundle, tiny.svb, in its folder."""
    booted: dict[Board, Emulated] = {}

    def make(board: Board) -> Emulated:
        if board not in booted:
            booted[board] = emulate(board)
            shutil.copy(tiny_bundle_for(board.target), booted[board].work / "tiny.svb")
        return booted[board]

    return make


@pytest.fixture(scope="session")
def chat_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct for a Pi 5, with golden cases that are short enough for an emulator."""
    folder = tmp_path_factory.mktemp("chat")
    checkpoint = resolve("smollm2-135m-instruct")
    request = Request(checkpoint.spec, load_target(PI_5.target), folder / "chat.svb", calibrate=False)
    made = chat_pipeline.chat_format(request)
    draft = chat_pipeline._draft(request, *made, language_model(checkpoint), checkpoint, folder, lambda *_: None)
    with patch.multiple(chat_golden, TOKENS=8, _TEXTS=(), _QUESTIONS=("one question",)):
        golden = chat_golden.chat_golden_files(draft.path)
    return write_bundle(request.output, draft.fields, {**draft.files, **golden})


@pytest.fixture(scope="session")
def onnx_chat_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random chat model in four bits for onnxruntime, with golden cases."""
    folder = tmp_path_factory.mktemp("onnx-chat")
    draft = open_bundle(make_chat_bundle(folder / "draft.svb", "int4"))
    files: dict[str, bytes | Path] = {name: draft.read(name) for name in draft.manifest.files}
    return write_bundle(folder / "nano.svb", chat_fields(), {**files, **chat_golden.chat_golden_files(draft.path)})


def limited(run: Callable[[], Answer]) -> Answer:
    try:
        return run()
    except LimitUnavailable as reason:
        pytest.skip(f"memory is not limited here: {reason}")


def verified(answer: Answer) -> str:
    """What was printed, if all is well. Nothing on stderr: no library complains of the machine."""
    assert (answer.code, answer.err) == (0, ""), answer
    assert "cannot tell" not in answer.out and "FAILED" not in answer.out
    return answer.out


@by_name
def test_the_processor_is_the_boards(board: Board, emulate: Boot) -> None:
    code = "import platform; from sottovoce.cpu import this_cpu; print(platform.machine(), *this_cpu().features)"
    machine, *features = emulate(board).python("-c", code).out.split()
    assert machine == "aarch64" and set(load_target(board.target).instructions) <= set(features)
    assert ("asimddp" in features) == (board is PI_5)


@pytest.mark.weights
@by_name
def test_golden_cases_of_a_speech_bundle_hold_on_the_board_it_was_made_for(board: Board, boot: Boot) -> None:
    here = boot(board)
    answer = limited(lambda: here.sottovoce("verify", "/work/tiny.svb", memory_mb=board.memory_mb))
    assert SPOKEN in verified(answer).lower()


@pytest.mark.weights
def test_golden_cases_of_a_speech_bundle_for_litert_hold(emulate: Boot, tiny_bundle_for: Callable[..., Path]) -> None:
    here = emulate(PI_5)
    shutil.copy(tiny_bundle_for(PI_5.target, "litert"), here.work / "tiny.svb")
    assert SPOKEN in verified(here.sottovoce("verify", "/work/tiny.svb")).lower()


@pytest.mark.weights
def test_a_bundle_made_for_a_newer_processor_is_refused_with_the_target_to_compile_for(
    boot: Boot, tiny_bundle_for: Callable[..., Path]
) -> None:
    here = boot(PI_4)
    shutil.copy(tiny_bundle_for(PI_5.target), here.work / "newer.svb")
    answer = here.sottovoce("verify", "/work/newer.svb")
    assert (
        answer.code == 1 and "needs a processor with asimddp" in answer.out and "--target raspberry-pi-4" in answer.out
    )


@pytest.mark.weights
def test_a_zero_2w_streams_in_the_memory_it_has(boot: Boot) -> None:
    here = boot(ZERO_2W)
    talk = next(clip.file for clip in builtin_set().clips if clip.name.startswith("two-cities-24"))
    shutil.copy(talk, here.work / "talk.wav")
    command = ("transcribe", "/work/tiny.svb", "/work/talk.wav", "--stream", "--no-pace")
    answer = limited(lambda: here.sottovoce(*command, memory_mb=ZERO_2W_MB))
    assert answer.code == 0 and SPOKEN in answer.out.lower(), answer
    assert answer.peak_mb is not None and answer.peak_mb < ZERO_2W_MB


def test_more_memory_than_the_board_has_is_not_given(emulate: Boot) -> None:
    here = emulate(ZERO_2W)
    answer = limited(lambda: here.python("-c", "bytearray(b'x') * 600_000_000", memory_mb=ZERO_2W_MB))
    assert answer.code != 0


@pytest.mark.weights
@pytest.mark.parametrize("board", [PI_4, PI_5], ids=lambda board: board.target)
def test_golden_cases_of_a_chat_bundle_hold(board: Board, emulate: Boot, chat_bundle: Path) -> None:
    here = emulate(board)
    shutil.copy(chat_bundle, here.work / "chat.svb")
    assert "golden/case-0.json" in verified(here.sottovoce("verify", "/work/chat.svb"))


@pytest.mark.parametrize("board", [PI_4, PI_5], ids=lambda board: board.target)
def test_golden_cases_of_a_chat_bundle_for_onnxruntime_hold(
    board: Board, emulate: Boot, onnx_chat_bundle: Path
) -> None:
    here = emulate(board)
    shutil.copy(onnx_chat_bundle, here.work / "nano.svb")
    assert "golden/case-0.json" in verified(here.sottovoce("verify", "/work/nano.svb"))
