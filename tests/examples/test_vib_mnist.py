"""The example of VIB, CEB and the information objective: a whole run on small data, its table and its picture."""

import re
import sys
from functools import partial

import numpy as np
import pytest
import torch

from lightning_ib import InformationPlaneCallback
from lightning_ib.objectives import BottleneckOutput, ConditionalPrior, gaussian_kl
from tests.helpers import ROOT
from tests.helpers.scripts import loaded, untouched

pytestmark = pytest.mark.slow

pytest.importorskip("sklearn", reason="needs the extra: pip install 'lightning-ib[example]'")

SCRIPT = ROOT / "examples" / "vib_mnist.py"


@pytest.fixture(scope="module")
def example():
    with loaded(SCRIPT) as module:
        yield module


@pytest.fixture
def run(example, tmp_path, monkeypatch, capsys):
    """Run the example on the small digits; random states are put back.

    Without the callback's probe of the wide layers, which takes three quarters of the time and is not looked at.
    """
    shared = sys.modules[example.BottleneckNet.__module__]
    monkeypatch.setattr(shared, "InformationPlaneCallback", partial(InformationPlaneCallback, estimators=()))

    def _run(*flags):
        picture = tmp_path / "new" / "plane.png"
        example.main(["--data", "digits", "--log-dir", str(tmp_path), "--out", str(picture), *flags])
        return capsys.readouterr().out, picture

    with untouched(monkeypatch):
        yield _run


def test_a_run_learns_and_draws(example, run, tmp_path):
    text, picture = run("--betas", "0.001", "0.1", "--epochs", "3", "--batch-size", "50")
    rows = {}
    for line in text.splitlines():
        if line.endswith("%"):
            rate, i_zy, one, many, mean = map(float, re.findall(r"([\d.]+)(?:%|\s|$)", line[33:]))
            rows[line[:33].split()[0], line[13:33].strip()] = rate, i_zy, many, mean
            assert many <= one + 1
    assert list(rows) == [
        ("VIB", "β = 0.001"),
        ("VIB", "β = 0.1"),
        ("CEB", "γ = 10"),
        ("information", "λ = 0.001, 0.01"),
    ]
    for rate, i_zy, many, mean in rows.values():
        assert 1 < i_zy < min(rate, 2.303)
        assert many < 25
        assert mean < 25
    assert rows["VIB", "β = 0.001"][0] > 2 * rows["VIB", "β = 0.1"][0]
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert f"The rate-distortion plane: {picture}" in text
    logged = {tag for folder in (tmp_path / "lightning_logs").iterdir() for tag in logged_tags(folder)}
    assert {"loss", "rate", "distortion", "reconstruction", "val_rate"} <= logged


def logged_tags(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    return events.Reload().Tags()["scalars"]


def test_the_rate_of_a_reverse_encoder_is_that_of_the_mixture(example):
    """With equal classes it is that of one Gaussian, and it lies between I(X;Z|Y) and the rate of any class."""
    code = BottleneckOutput(torch.randn(400, 6, 3), torch.randn(6, 3), torch.full((6, 3), 0.5), torch.zeros(6))
    code = code._replace(sample=code.mean + code.std * code.sample, kl=gaussian_kl(code.mean, code.std))
    prior, y = ConditionalPrior(2, 3), torch.tensor([0, 0, 0, 0, 1, 1])
    with torch.no_grad():
        assert example.rate(code, prior, y).item() == pytest.approx(code.kl.mean().item(), abs=0.05)
        prior.mean[1] = 50.0
        assert example.rate(code, prior, y).item() == pytest.approx(code.kl.mean().item() - np.log(4 / 6), abs=0.05)
    assert example.rate(code, None, y) == code.kl.mean()


def test_the_picture_shows_every_network(example):
    rows = [
        example.Row("VIB", "β = 0.1", 5.0, 1.9, 0.4, 0.09, 0.03, 0.02),
        example.Row("VIB", "β = 0.01", 13.0, 2.1, 0.2, 0.04, 0.03, 0.03),
        example.Row("CEB", "γ = 1", 3.0, 2.1, 0.2, 0.05, 0.03, 0.03),
    ]
    plane, errors = example.draw(rows, 2.3).axes
    assert {text.get_text() for text in plane.texts} == {row.setting for row in rows}
    assert plane.get_xscale() == errors.get_xscale() == "log"
    assert [text.get_text() for text in errors.get_legend().get_texts()] == ["one draw", "12 draws", "mean code"]
    drawn = [line.get_xydata().tolist() for line in errors.lines]
    assert [[5.0, 9.0], [13.0, 4.0]] in drawn
    assert [[3.0, 5.0]] in drawn


def test_flags_that_make_no_sense_and_a_picture_that_cannot_be_written(example, capsys, tmp_path):
    for flags, words in ((["--betas", "-1"], "of at least 0, got '-1'"), (["--out", "x.txt"], "must end in .png")):
        with pytest.raises(SystemExit):
            example.main(flags)
        assert words in capsys.readouterr().err
