"""`sottovoce verify`: is a bundle whole, does it fit this machine, does it still give the same results.

Knows how to print the answer. What is checked, and how, is golden.py's.
"""

import argparse
import json
from pathlib import Path

from sottovoce.cli import DONE, FAILED
from sottovoce.errors import BundleError, InputError

EXAMPLE = """\
  sottovoce verify whisper-base.svb
  sottovoce verify whisper-base.svb --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command line."""
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="a .svb file or a bundle's folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object with the keys ok, failures, checks")


def run(args: argparse.Namespace) -> int:
    """Exit code 0 when every check holds, 1 when one does not; a path with nothing there is an InputError."""
    if not args.bundle.exists():
        raise InputError(f"{args.bundle}: no such bundle")
    passed, failures = _checks(args.bundle)
    if args.json:
        print(json.dumps({"ok": not failures, "failures": failures, "checks": passed}, ensure_ascii=False))
    else:
        for check in passed:
            print(f"ok      {check}")
        for failure in failures:
            print(f"FAILED  {failure}")
    return FAILED if failures else DONE


def _checks(path: Path) -> tuple[list[str], list[str]]:
    """What holds and what does not, a line each; a bundle too damaged to open is a failure, not bad usage."""
    from sottovoce.golden import verify

    try:
        result = verify(path)
    except BundleError as error:
        return [], [str(error)]
    failures = list(result.failures)
    if not result.ok and not failures:
        failures = [f"{path}: a check did not hold"]
    return [check for check in result.checks if check not in failures], failures
