"""Lets the tests import the benchmarks of kernels, which are run by their paths."""

import sys
from pathlib import Path

KERNELS = Path(__file__).parents[3] / "benchmarks" / "kernels"
if str(KERNELS) not in sys.path:
    sys.path.append(str(KERNELS))
