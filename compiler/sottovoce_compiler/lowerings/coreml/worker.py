"""The process that converts: reads a job from a folder, writes the packages beside it, and says how far it is.

`python -m sottovoce_compiler.lowerings.coreml.worker FOLDER MEGABYTES` is run by `conversion`.
"""

import errno
import logging
import sys
from pathlib import Path

from sottovoce_compiler.families.causal import CausalSpec
from sottovoce_compiler.families.whisper import WhisperSpec
from sottovoce_compiler.lowerings.coreml.conversion import FAILED, MEMORY, MISSING, PROGRESS
from sottovoce_compiler.lowerings.coreml.job import Job, Load, read_job

# What the C library's loader says when it may map no more.
_NO_ROOM = ("failed to map segment", "cannot allocate memory", "cannot map zero-fill pages")


def main(folder: Path, megabytes: int) -> None:
    """Convert the job in `folder` within `megabytes` of memory."""
    _limit(megabytes)
    job, load = read_job(folder)
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    if isinstance(job.spec, WhisperSpec):
        _speech(job, load, folder / "packages")
    else:
        _chat(job, load, folder / "packages")


def _speech(job: Job, load: Load, packages: Path) -> None:
    from sottovoce_compiler.lowerings.coreml.package import SUFFIX, save
    from sottovoce_compiler.lowerings.coreml.program import program, specification
    from sottovoce_compiler.lowerings.coreml.weights import stored
    from sottovoce_compiler.lowerings.coreml.whisper import Parts, WhisperPrograms

    assert isinstance(job.spec, WhisperSpec)
    parts = Parts(*(stored(job.precision[part], job.system, job.block) for part in ("encoder", "decoder", "head")))
    makers = WhisperPrograms(job.spec, load, parts, job.system).all()
    for number, (name, make) in enumerate(makers.items()):
        _tell(number / len(makers))
        save(program({name: make()}), packages / f"{name}{SUFFIX}", specification(job.system), job.about)


def _chat(job: Job, load: Load, packages: Path) -> None:
    from sottovoce.engines.coreml_chat import PACKAGE
    from sottovoce_compiler.lowerings.coreml.causal import CausalPrograms
    from sottovoce_compiler.lowerings.coreml.causal_recipe import causal_parts
    from sottovoce_compiler.lowerings.coreml.package import SUFFIX, save
    from sottovoce_compiler.lowerings.coreml.program import program, specification

    assert isinstance(job.spec, CausalSpec)
    parts = causal_parts(job.precision["layers"], job.spec, job.importance)
    programs = CausalPrograms(job.spec, load, parts, job.context, job.system)
    functions = {}
    makers = programs.all()
    for number, (name, make) in enumerate(makers.items()):
        _tell(number / (len(makers) + 1))
        functions[name] = make()
    _tell(len(functions) / (len(functions) + 1))
    save(program(functions), packages / f"{PACKAGE}{SUFFIX}", specification(job.system), job.about)


def _tell(done: float) -> None:
    print(f"{PROGRESS}{done:.3f}", flush=True)


def _limit(megabytes: int) -> None:
    """No more private memory than that. Shared libraries and mapped files do not count."""
    try:
        import resource
    except ImportError:  # Windows has none
        return
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = megabytes << 20
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


def out_of_memory(error: ImportError | OSError) -> bool:
    """Whether that is the limit too: a library that finds no room to be loaded is an ImportError without errno."""
    said = str(error)
    return getattr(error, "errno", None) == errno.ENOMEM or any(words in said for words in _NO_ROOM)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]))
    except MemoryError:
        print(MEMORY, flush=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "coremltools":
            raise
        print(f"{MISSING}Core ML packages need coremltools: pip install 'sottovoce-compiler[coreml]'", flush=True)
        sys.exit(1)
    except (ImportError, OSError) as error:
        if not out_of_memory(error):
            raise
        print(MEMORY, flush=True)
        sys.exit(1)
    except ValueError as error:
        print(f"{FAILED}{str(error).splitlines()[0]}", flush=True)
        sys.exit(1)
