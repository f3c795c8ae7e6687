"""The result of memory.py as Markdown. Knows its JSON, and nothing of how it was measured."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def markdown(result: Mapping[str, Any]) -> str:
    """One table of every use of every bundle, one of pairs, and how large the errors were."""
    machine, versions = result["machine"], result["versions"]
    rows = list(_rows(result["cases"]))
    lines = [
        "# Memory, predicted and measured",
        "",
        f"`{result['command']}`, {result['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['system']}, "
        f"Python {machine['python']}, {', '.join(f'{name} {version}' for name, version in versions.items())}.",
        "",
        "MB (10^6 bytes) above the imports, in a fresh process each. The first use of a bundle is what `sottovoce "
        "bench` does (speech: 5 s; chat: 512 tokens). Constants of the model were fitted to the bundles marked *; the "
        "others were held out.",
        "",
        *_errors(rows),
        "",
        *_table(
            ("bundle", "MB on disk", "use", "predicted", "measured", "error"),
            ((name, disk, use, f"{p:.1f}", f"{m:.1f}", f"{p / m - 1:+.1%}") for name, disk, use, p, m in rows),
        ),
        "",
        "Two bundles in one process, imports included, each used in the way that takes most of those it needs:",
        "",
        *_table(("bundles", "predicted", "measured", "error"), _pairs(result["pairs"])),
        "",
    ]
    return "\n".join(lines)


def _rows(cases: Mapping[str, Any]) -> Iterable[tuple[str, str, str, float, float]]:
    for name, case in cases.items():
        mark = "*" if case["fitted"] else ""
        for use, mb in case["uses"].items():
            yield f"{name}{mark}", f"{case['bundle_mb']:.0f}", use, mb["predicted_mb"], mb["measured_mb"]


def _errors(rows: Sequence[tuple[str, str, str, float, float]]) -> Iterable[str]:
    """How far off the fitted and the held-out bundles were: at most, and on average."""
    for title, fitted in (("Fitted", True), ("Held out", False)):
        errors = [abs(row[3] / row[4] - 1) for row in rows if row[0].endswith("*") == fitted]
        if errors:
            mean = sum(errors) / len(errors)
            yield f"- {title}: {len(errors)} figures, off by {mean:.1%} on average and {max(errors):.1%} at most."


def _pairs(pairs: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    for name, mb in pairs.items():
        error = mb["predicted_mb"] / mb["measured_mb"] - 1
        yield name, f"{mb['predicted_mb']:.1f}", f"{mb['measured_mb']:.1f}", f"{error:+.1%}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
