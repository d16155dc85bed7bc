"""The example of infinitely wide networks: finite ones beside them, and the whole script."""

import math

import pytest
import torch

from tests.helpers import ROOT
from tests.helpers.scripts import loaded, untouched

pytest.importorskip("sklearn", reason="needs the extra: pip install 'lightning-ib[example]'")


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        with loaded(ROOT / "examples" / "infinite_width.py") as module:
            yield module


def test_the_data_sets_are_balanced_and_of_unit_scale(script):
    for task in script.tasks().values():
        assert [len(part) for part in task] == [script.N_TRAINING] * 2 + [script.N_TEST] * 2
        assert 0.5 < float(task.x.square().mean()) < 2
        assert abs(float(task.y.mean())) < 0.4


def test_finite_networks_go_where_the_infinite_ones_go(script, monkeypatch):
    monkeypatch.setattr(script, "STEPS", (0, 16))
    task = script.tasks()["half-moons"]
    infinite = script.ensemble(task, 1, "erf")
    rate = script.RATE / float(torch.linalg.eigvalsh(infinite.ntk(task.x)).max())
    z = script.trained(task, 256, "erf", rate, 60, seed=0)
    truth = infinite.at([0.0, 16 * rate], task.x_test)
    for k in range(2):
        spread = truth.variance[k].sqrt() / math.sqrt(60)
        assert ((z[k].mean(0) - truth.mean[k]).abs() < 4.5 * spread + 0.03).all()


def test_estimates_of_a_label_that_is_plain(script):
    label = torch.arange(600) % 2
    noise = torch.randn(600, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = script.estimates(4 * label + 0.5 * noise, label)
    assert set(found) == {"cells", "kde", "knn", "soft"}
    assert all(value == pytest.approx(1, abs=0.1) for value in found.values())


@pytest.mark.slow
def test_the_script(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "STEPS", (0, 4))
    monkeypatch.setattr(script, "DEPTHS", (1, 2))
    flags = ["--networks", "8", "--widths", "16", "--out", tmp_path / "plane.png", "--table", tmp_path / "table.md"]
    with untouched(monkeypatch):
        assert script.main([str(one) for one in flags]) == 0
    assert (tmp_path / "plane.png").read_bytes().startswith(b"\x89PNG")
    table = (tmp_path / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert len([line for line in table.splitlines() if line.startswith("| ")]) == 2 + 2 * 2 * 2
