"""Our onnxruntime engine beside onnxruntime-genai: same tokens, same threads, greedy, an end is never chosen."""

from collections.abc import Mapping
from pathlib import Path

from chat_plan import ChatBundle, ChatModel, Plan
from peers.chat import GENAI, OUR_ENGINE, OURS, ChatSystem, Made, available, create_chat
from peers.sottovoce_chat import SottovoceChat

from chat_stages import Json, say
from chat_stages.loop import ask, timed


def run(plan: Plan, model: ChatModel, bundle: ChatBundle) -> Json:
    """Beside every folder of onnxruntime-genai in the bundle's precision; made here where none is given."""
    folders = genai_folders(plan, model, bundle)
    systems: dict[str, ChatSystem] = {OUR_ENGINE: create_chat(OUR_ENGINE, _made(plan, bundle))}
    systems |= {f"{GENAI} {name}": create_chat(GENAI, _made(plan, bundle, folder)) for name, folder in folders.items()}
    for system in systems.values():
        system.load()
    chat = SottovoceChat(_made(plan, bundle))
    chat.load()
    found: Json = {"systems": {name: dict(system.describe()) for name, system in systems.items()}}
    for wanted in plan.prompts:
        question = ask(chat, wanted)
        say(f"  prompt of {len(question.tokens)}")
        rates = timed(plan, systems, question, plan.tokens, None)
        mine = rates[OUR_ENGINE]
        found[f"greedy {wanted}"] = {
            name: {**one.to_json(), **({} if name == OUR_ENGINE else {"ours_against": mine.against(one)})}
            for name, one in rates.items()
        }
    question = ask(chat, min(plan.prompts))
    tokens = chat.answer(question, plan.tokens, None).tokens
    say("  through Chat.stream")
    both = timed(plan, {OURS: chat, OUR_ENGINE: systems[OUR_ENGINE]}, question, tokens, None)
    found["chat"] = {**both[OURS].to_json(), "against_engine": both[OURS].against(both[OUR_ENGINE])}
    for system in (*systems.values(), chat):
        system.close()
    return found


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
