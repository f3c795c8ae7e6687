"""`sottovoce inspect`: the manifest and the report of a bundle, for people or for scripts.

Checks what opening a bundle checks; `sottovoce verify` reads the rest. Knows the manifest, and shows whatever
a report holds without knowing what it means.
"""

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from sottovoce.bundle import Bundle, open_bundle
from sottovoce.manifest import Manifest, printable

EXAMPLE = "sottovoce inspect whisper-base.svb"
WIDTH = 80
_LABEL = 12  # columns of the label before a value
_INDENT = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("bundle", metavar="BUNDLE", help="a .svb file or a bundle folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object: path, bytes, manifest, report")


def run(args: argparse.Namespace) -> int:
    """Prints the bundle's manifest and report. Raises BundleError when it cannot be read."""
    bundle = open_bundle(args.bundle)
    report = bundle.report()
    if args.json:
        facts = {"path": str(bundle.path), "bytes": bundle.size}
        print(json.dumps(facts | {"manifest": bundle.manifest.raw, "report": report}))
    else:
        # A terminal that lacks a letter of some language shows a mark in its place, rather than failing.
        encoding = sys.stdout.encoding or "utf-8"
        for line in [*_describe(bundle), *_describe_report(report)]:
            print(line.encode(encoding, "replace").decode(encoding))
    return 0


def _describe(bundle: Bundle) -> Iterator[str]:
    manifest = bundle.manifest
    yield f"{printable(manifest.name)}  {_size(bundle.size)}  {printable(str(bundle.path))}"
    yield ""
    for label, value in _identity(manifest):
        yield from _pair(label, value)
    yield from _section("Files")
    width = max([len("name"), *map(len, manifest.files)])
    yield f"  {'name':{width}}  {'bytes':>14}  sha256"
    for name, entry in sorted(manifest.files.items()):
        yield f"  {name:{width}}  {entry.bytes:>14,}  {entry.sha256[:12]}"


def _identity(manifest: Manifest) -> Iterator[tuple[str, str]]:
    source, engine = manifest.source, manifest.engine
    yield "task", manifest.task
    yield "family", manifest.family
    yield "precision", manifest.precision
    yield "source", source.spec
    yield "revision", source.revision or "unknown"
    yield "licence", source.licence or "unknown"
    facts = {key: value for key, value in manifest.target.facts.items() if key != "name"}
    yield "target", manifest.target.name + (f" ({_inline(facts)})" if facts else "")
    limit = f", below {engine.max_version}" if engine.max_version else ""
    opset = f", opset {engine.opset}" if engine.opset is not None else ""
    yield "engine", f"{engine.name} {engine.min_version} or newer{limit}{opset}"
    yield "processor", ", ".join(engine.cpu_features) or "any"
    yield "format", f"{manifest.format}, for sottovoce {manifest.requires_runtime} or newer"


def _describe_report(report: Mapping[str, object]) -> Iterator[str]:
    """Plain values first, then a section for each part."""
    yield from _section("Report")
    plain = {key: value for key, value in report.items() if not isinstance(value, Mapping)}
    yield from _nested(plain, _INDENT) if report else ["  none"]
    for key, value in report.items():
        if isinstance(value, Mapping):
            yield from _section(key)
            yield from _side_by_side(value) or _nested(value, _INDENT)


def _side_by_side(value: Mapping[str, object]) -> list[str]:
    """One column a part, when several parts measure mostly the same things: the source and the artifact."""
    names = sorted(value, key=lambda name: name != "source")
    parts = [dict(_flatten(part)) for name in names if isinstance(part := value[name], Mapping)]
    labels = list(dict.fromkeys(label for part in parts for label in part))
    shared = [label for label in labels if all(label in part for part in parts)]
    if len(parts) < max(2, len(value)) or len(shared) * 2 <= len(labels):
        return []
    return _grid([["", *names], *([label, *(part.get(label, "") for part in parts)] for label in labels)], _INDENT)


def _table(rows: Sequence[Mapping[str, object]], indent: int) -> list[str]:
    """One line a row, when the rows all have the same keys."""
    heads = list(rows[0])
    if not heads or any(list(row) != heads for row in rows):
        return []
    return _grid([heads, *(list(row.values()) for row in rows)], indent)


def _grid(rows: Sequence[Sequence[object]], indent: int) -> list[str]:
    """Aligned columns, the first to the left and the others to the right; nothing when they are too wide."""
    cells = [[_inline(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if indent + sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        return []
    aligned = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in cells]
    return [" " * indent + "  ".join(row).rstrip() for row in aligned]


def _flatten(value: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield prefix + str(key), item


def _nested(value: Mapping[str, object], indent: int) -> Iterator[str]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield " " * indent + printable(str(key))
            yield from _nested(item, indent + _INDENT)
        elif isinstance(item, list) and item and all(isinstance(row, Mapping) for row in item):
            yield " " * indent + printable(str(key))
            rows = (_wrapped(" " * (indent + _INDENT) + "- ", _inline(row)) for row in item)
            yield from _table(item, indent + _INDENT) or chain.from_iterable(rows)
        else:
            yield from _pair(str(key), _inline(item), indent)


def _section(title: str) -> Iterator[str]:
    yield ""
    yield printable(title[:1].upper() + title[1:])


def _pair(label: str, value: str, indent: int = _INDENT) -> Iterator[str]:
    return _wrapped(" " * indent + f"{printable(label):{_LABEL}}  ", printable(value, 4000))


def _wrapped(before: str, text: str) -> Iterator[str]:
    """`text` after `before`, its further lines under the first."""
    if len(before) > WIDTH // 2:
        yield before.rstrip()
        before = " " * (len(before) - len(before.lstrip()) + _INDENT)
    rest = " " * len(before)
    yield from textwrap.wrap(text, WIDTH, initial_indent=before, subsequent_indent=rest) or [before.rstrip()]


def _inline(value: object) -> str:
    """A JSON value on one line, in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{printable(str(key))} {_inline(item)}" for key, item in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_inline, value)) or "none"
    return printable(str(value), 1000)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count:,} bytes"
