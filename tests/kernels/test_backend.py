"""Which implementation runs where."""

import subprocess
import sys
from unittest.mock import patch

import pytest
import torch

from sottovoce_kernels.backend import BackendError, choose, has_triton, interpreted

X = torch.zeros(3)


def test_tensors_on_the_cpu_take_the_reference() -> None:
    assert choose(None, X, None) == "reference"
    assert choose("reference", X) == "reference"


def test_triton_on_cpu_tensors_is_refused_with_the_way_out() -> None:
    with pytest.raises(BackendError, match="on a GPU, these are on cpu; use 'reference'"):
        choose("triton", X)


def test_triton_that_is_not_installed_is_named_with_its_install() -> None:
    with patch("sottovoce_kernels.backend.has_triton", return_value=False):
        assert choose(None, X) == "reference"
        with pytest.raises(BackendError, match="pip install"):
            choose("triton", X)


@pytest.mark.interpreted
def test_the_interpreter_takes_cpu_tensors_only_when_asked() -> None:
    assert interpreted()
    assert choose("triton", X) == "triton"
    assert choose(None, X) == "reference"


def test_tensors_on_a_gpu_take_triton(gpu: torch.device) -> None:
    assert choose(None, X.to(gpu)) == ("triton" if has_triton() else "reference")
    assert choose(None, X.to(gpu), X) == "reference"


def test_choosing_does_not_import_triton() -> None:
    code = (
        "import sys, torch; from sottovoce_kernels.backend import choose; choose(None, torch.zeros(1)); "
        "sys.exit('triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
