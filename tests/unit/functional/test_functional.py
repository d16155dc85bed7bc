"""The functional package: complete, and without anything but torch."""

import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.slow

OPTIONAL = ["pytorch_lightning", "lightning", "torchmetrics", "matplotlib", "tensorboard"]


def python_without(blocked, code):
    block = f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))"
    return subprocess.run(
        [sys.executable, "-c", f"{block}\n{code}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )


@pytest.mark.parametrize("blocked", [OPTIONAL, [*OPTIONAL, "numpy", "scipy", "sklearn"]], ids=["above", "numpy too"])
def test_the_functional_package_needs_only_torch(blocked):
    code = (
        "import torch, lightning_ib.functional as f\n"
        "z = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])\n"
        "table = f.hash_table(n_coordinates=2, n_codes=2)\n"
        "ids = f.row_ids(f.bucketize(z, edges=f.quantiles(z, q=[0.5])), table=table, values=z)\n"
        "assert f.mutual_information(ids, ids) == f.entropy(ids) > 0\n"
        "assert not {f'lightning_ib.{room}' for room in ('measurement', 'binning', 'callbacks')} & sys.modules.keys()\n"
    )
    done = python_without(blocked, code)
    assert done.returncode == 0, done.stderr


def test_a_measurement_imports_neither_lightning_nor_torchmetrics():
    """They take longer to import than PyTorch."""
    code = (
        "import torch\n"
        "from lightning_ib import measure\n"
        "data = [(torch.randn(100, 3), torch.arange(100) % 2)]\n"
        "assert [point.n_samples for point in measure(torch.nn.Sequential(torch.nn.Linear(3, 2)), data)] == [100]\n"
    )
    done = python_without(["pytorch_lightning", "lightning", "torchmetrics"], code)
    assert done.returncode == 0, done.stderr


def test_everything_public_in_the_functional_package_is_there():
    import lightning_ib.functional

    assert sorted(lightning_ib.functional.__all__) == lightning_ib.functional.__all__
    assert all(hasattr(lightning_ib.functional, name) for name in lightning_ib.functional.__all__)
