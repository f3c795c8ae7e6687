"""Texts as examples: learned whole, or after the last place where a marker stands. Knows no file and no template."""

from collections import Counter
from collections.abc import Sequence

from sottovoce_compiler.finetune.data.coder import Coder
from sottovoce_compiler.finetune.data.conversation import common
from sottovoce_compiler.finetune.data.example import Example
from sottovoce_compiler.finetune.data.lines import Faults
from sottovoce_compiler.finetune.data.records import TextLine


def texts(
    coder: Coder, lines: Sequence[TextLine], marker: str | None, faults: Faults, notes: Counter[str]
) -> list[Example]:
    """An example for each line, ended by the token that ends text; with `marker` what comes after its last place is
    learned. Lines in which there is none, or nothing after it, are added to `faults`.

    The tokens are those of the text as a whole. One that begins in the marker (a space that belongs to the next word)
    is learned: a prompt that ends before that space is what the model goes on from.
    """
    sound = [line for line in lines if marker is None or _is_answered(line, marker, faults)]
    notes["spelled"] += sum(coder.spells_control(line.text) for line in sound)
    whole = coder.encode_text([line.text for line in sound])
    if marker is None:
        return [
            Example.of([*ids, coder.end], [True] * (len(ids) + 1), line.line)
            for line, ids in zip(sound, whole, strict=True)
        ]
    asked = coder.encode_text([line.text[: line.text.rindex(marker) + len(marker)] for line in sound])
    found = []
    for line, ids, before in zip(sound, whole, asked, strict=True):
        start = common(ids, before)
        found.append(Example.of([*ids, coder.end], [False] * start + [True] * (len(ids) + 1 - start), line.line))
    return found


def _is_answered(line: TextLine, marker: str, faults: Faults) -> bool:
    _, mark, answer = line.text.rpartition(marker)
    if not mark:
        faults.add(line.line, f"has no {marker!r}, after which the answer begins")
    elif not answer.strip():
        faults.add(line.line, f"has nothing after {marker!r}")
    else:
        return True
    return False
