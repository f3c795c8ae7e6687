"""Our onnxruntime engine beside onnxruntime-genai: same tokens, same threads, greedy, an end is never chosen."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from cached_files import forget
from chat_plan import ChatBundle, ChatModel, Plan
from peers.chat import GENAI, OUR_ENGINE, OURS, Made, available, create_chat
from peers.sottovoce_chat import SottovoceChat

from chat_stages import Json, say
from chat_stages.loop import ask
from chat_stages.openings import OPENINGS, Case, over_openings, rated, timed


def run(plan: Plan, model: ChatModel, bundle: ChatBundle) -> Json:
    """Beside every folder of onnxruntime-genai in the bundle's precision; made here where none is given."""
    folders = genai_folders(plan, model, bundle)
    makers = {OUR_ENGINE: partial(create_chat, OUR_ENGINE, _made(plan, bundle))}
    makers |= {
        f"{GENAI} {name}": partial(create_chat, GENAI, _made(plan, bundle, folder)) for name, folder in folders.items()
    }
    chat = SottovoceChat(_made(plan, bundle))
    chat.load()
    cases = {f"greedy {wanted}": Case(ask(chat, wanted), plan.tokens) for wanted in plan.prompts}
    chat.close()
    forget(bundle.path, *folders.values())
    rates, described = over_openings(plan, makers, cases)
    through = _through_chat(plan, chat, _made(plan, bundle), cases[f"greedy {min(plan.prompts)}"])
    return {"systems": described, "openings": OPENINGS, **rated(rates, OUR_ENGINE), "chat": through}


def _through_chat(plan: Plan, chat: SottovoceChat, made: Made, asked: Case) -> Json:
    """Chat.stream beside the engine alone, of one opening."""
    say("  through Chat.stream")
    engine = create_chat(OUR_ENGINE, made)
    for system in (engine, chat):
        system.load()
    tokens = chat.answer(asked.question, asked.tokens, None).tokens
    both = timed(plan, {OURS: chat, OUR_ENGINE: engine}, Case(asked.question, tokens))
    for system in (engine, chat):
        system.close()
    return {**both[OURS].to_json(), "against_engine": both[OURS].against(both[OUR_ENGINE])}


def genai_folders(plan: Plan, model: ChatModel, bundle: ChatBundle) -> Mapping[str, Path]:
    """By name, those given or else made; none where onnxruntime-genai is not installed."""
    if not available((GENAI,)):
        return {}
    given = {name: folder for name, folder in model.genai.items() if _same(name, bundle)}
    if given:
        return given
    from peers.genai import BUILDS, make_folder

    say("  onnxruntime-genai's builder, once")
    return {name: make_folder(model.spec, name, plan.work) for name in BUILDS if _same(name, bundle)}


def _same(name: str, bundle: ChatBundle) -> bool:
    return name.split(",")[0] == bundle.precision


def _made(plan: Plan, bundle: ChatBundle, genai: Path | None = None) -> Made:
    return Made(bundle, plan.threads, plan.context, plan.work, genai)
