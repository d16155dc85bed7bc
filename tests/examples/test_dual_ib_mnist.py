"""The example of the variational dual IB: whole runs of it on small data, and its table."""

import re
import sys

import pytest

from lightning_ib.objectives import ConditionalPrior
from lightning_ib.records import History
from tests.helpers import ROOT
from tests.helpers.scripts import loaded, untouched

pytestmark = pytest.mark.slow

pytest.importorskip("sklearn", reason="needs the extra: pip install 'lightning-ib[example]'")

SCRIPT = ROOT / "examples" / "dual_ib_mnist.py"


@pytest.fixture(scope="module")
def example():
    with loaded(SCRIPT) as module:
        yield module


@pytest.fixture
def run(example, tmp_path, monkeypatch, capsys):
    """Run the example on the small digits; gives the rows of its table as numbers. Random states are put back."""

    def _run(*flags):
        example.main(["--data", "digits", "--log-dir", str(tmp_path), *flags])
        text = capsys.readouterr().out
        rows = [re.findall(r"-?[\d.]+", line) for line in text.splitlines() if line.endswith("%")]
        return text, [example.Row(*map(float, row)) for row in rows]

    with untouched(monkeypatch):
        yield _run


def test_a_run_learns_and_its_terms_are_logged(run, tmp_path):
    text, rows = run("--weights", "100", "0", "--weights", "0", "100", "--epochs", "3", "--batch-size", "50")
    vib, dual = rows
    assert (vib.beta, vib.gamma, dual.beta, dual.gamma) == (100, 0, 0, 100)
    for row in rows:
        assert row.mean_code < 25  # per cent
        assert 1 < row.i_zy < 2.303
        assert row.i_zy < row.rate
        assert row.dual > 0
    assert text.startswith("\n297 test images, in nats:\n")
    assert "rate: upper bound of I(X;Z);" in text
    assert "\nβ + γ = 100, γ from 0 to 100: dual term " in text
    assert len(list((tmp_path / "lightning_logs").iterdir())) == 2
    history = History.read_csv(tmp_path / "lightning_logs" / "version_1" / "information_plane.csv")
    assert {point.layer for point in history} == {"encoder.1", "encoder.3", "bottleneck", "decoder"}
    assert {point.verdict for point in history if point.layer == "bottleneck"} <= {"ok", "undersampled", "saturated"}


def test_the_reverse_encoder_is_trained_and_the_rate_is_named_after_it(example, run, monkeypatch):
    nets = []
    monkeypatch.setattr(
        example, "evaluate", lambda net, x, y, real=example.evaluate: (nets.append(net), real(net, x, y))[1]
    )
    text, (row,) = run("--weights", "10", "10", "--prior", "conditional", "--epochs", "1", "--limit", "400")
    assert "rate: upper bound of I(X;Z|Y);" in text
    (net,) = nets
    assert isinstance(net.prior, ConditionalPrior)
    assert (net.prior.mean.abs().sum(1) > 0).all()
    assert row.rate > 0


def test_the_table_compares_what_has_the_same_weight_of_labels(example):
    vib = example.Row(10, 0, 5, 1.9, 0.4, 0.09, 0.03, 0.02)
    rows = [vib, vib._replace(beta=5, gamma=5, dual=0.3), vib._replace(beta=1, gamma=5)]
    text = example.table(rows, 400, conditional=False)
    assert text.count("β + γ =") == 1
    assert "β + γ = 10, γ from 0 to 5: dual term 0.400 → 0.300, rate 5.00 → 5.00," in text
    assert "error of the mean code 2.00% → 2.00% (one seed; standard error of each 0.70%)" in text


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--weights", "-1", "0"], "must be a finite number of at least 0, got '-1'"),
        (["--weights", "1", "nan"], "must be a finite number of at least 0, got 'nan'"),
        (["--weights", "1"], "expected 2 arguments"),
        (["--epochs", "0"], "must be a whole number of at least 1, got '0'"),
    ],
)
def test_flags_that_make_no_sense(example, capsys, flags, words):
    with pytest.raises(SystemExit):
        example.main(flags)
    assert words in capsys.readouterr().err


def test_no_data_ends_in_one_sentence(example, monkeypatch, tmp_path):
    def fail(*_):
        raise RuntimeError("MNIST cannot be had.")

    monkeypatch.setattr(sys.modules["bottleneck_mnist"], "load_data", fail)
    with pytest.raises(SystemExit, match=r"^error: MNIST cannot be had\.$"):
        example.main(["--data", "mnist"])
