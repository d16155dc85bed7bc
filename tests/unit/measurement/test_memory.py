"""A million samples are kept in little memory."""

import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")

MEMORY = r"""
import re, torch
from pathlib import Path
from torch import nn
from lightning_ib import FixedBins, InformationPlane, Quantizer

torch.set_num_threads(1)

def peak():
    # Not getrusage: what that calls the peak outlives exec, and may be the peak of the process that ran pytest.
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024

model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)).eval()
edges = FixedBins([-0.2, 0.0, 0.2])

def run(n_batches):
    plane = InformationPlane({name: Quantizer(None, edges) for name in ("0", "2", "4")})
    g = torch.Generator().manual_seed(0)
    with plane.attach(model), torch.no_grad():
        for _ in range(n_batches):
            x = torch.randn(1000, 8, generator=g)
            model(x)
            plane.update(x, (x[:, 0] > 0).long())
    counting = peak()
    points = plane.compute()
    assert points[0].n_samples == 1000 * n_batches, points
    assert points[0].n_codes > 1000
    return counting

run(5)
before = peak()
counting = run(1000)
print(counting - before, peak() - before)
"""


@pytest.fixture(scope="module")
def megabytes():
    """Above the model, for a million samples of three layers: while counting, and with the figures computed."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return tuple(map(float, done.stdout.split()))


@pytest.mark.slow
def test_a_million_samples_of_three_layers_are_kept_in_little_memory(megabytes):
    # 8 bytes × 1e6 × (three layers and the labels) = 32 MB; lists are merged by copying.
    assert megabytes[0] < 70


@pytest.mark.slow
def test_the_figures_of_a_million_samples_take_under_a_hundred_megabytes(megabytes):
    assert megabytes[1] < 100
