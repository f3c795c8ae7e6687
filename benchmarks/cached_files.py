"""Files taken out of the page cache, so that every system reads its model as a device does after its start.

How the cache came to hold a file decides how large the pieces are that a mapping of it consists of: a bundle that had
been in the cache since it was written was up to 15 % slower a token than a copy of it, in llama.cpp and in onnxruntime
alike, and not slower any more once it had been read from the disk.
"""

import os
from pathlib import Path


def forget(*paths: Path) -> None:
    """Take each file, and every file in each folder, out of the cache. What somebody has mapped stays; where the system
    has no such call, all stays."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                _forget(file)


def _forget(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)  # what is not on the disk yet cannot be taken out
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
