"""Estimators of others beside ours: what is called, what is left out, limits of time, and who is nearest."""

import importlib.util
import math
import os
import sys
import tempfile
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.examples.test_truth import a_row
from tests.helpers import ROOT

sys.path.append(str(ROOT / "benchmarks"))

import nearest
import peers
import runs
import tables
from cases import CASES, Case
from estimators import ESTIMATORS, Estimator
from peer_estimators import ENNEMI, NPEET, PEERS, SKLEARN, Package, Peer, own_temporary_folder
from records import ordered, read

from lightning_ib.functional import conditional_mutual_information


def case(kind, dims=(1, 1), symbols=""):
    return Case("some", kind, dims, 0.0, lambda n, g: (), symbols)


def peer_row(**changes):
    return a_row(estimator="ennemi", note="ennemi 1.5.0", **changes)


# --- Three variables -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correction", [None, "miller_madow"])
def test_counting_takes_a_third_variable(correction):
    x, y, z = CASES["three binary channels"].sample(500, torch.Generator().manual_seed(0))
    estimate = ESTIMATORS[correction or "plug_in"].estimate
    expected = conditional_mutual_information(x, y, given=z, correction=correction)
    assert estimate(x, y, z) == pytest.approx(expected, abs=1e-12)
    assert runs.measure("exclusive or of bits", "plug_in", 1000, 1).mean == pytest.approx(1, abs=0.01)
    assert runs.measure("exclusive or of bits", "plug_in", 1000, 1).dims == "1+1+1"


def test_temporary_files_have_a_folder_of_their_own():
    before = tempfile.gettempdir()
    with own_temporary_folder():
        first = Path(tempfile.gettempdir())
        (first / "weights").touch()
        with own_temporary_folder():
            assert not (Path(tempfile.gettempdir()) / "weights").exists()
        assert Path(tempfile.gettempdir()) == first
    assert tempfile.gettempdir() == before
    assert not first.exists()


def test_an_estimator_fits_kinds_symbols_and_coordinates():
    one = Estimator("one", ("continuous", "conditional"), max, symbols=("", "z"), coordinates="one")
    assert one.fits(case("continuous"))
    assert not one.fits(case("discrete"))
    assert not one.fits(case("continuous", (2, 1)))
    assert one.fits(case("conditional", (1, 1, 3)))
    assert one.fits(case("conditional", (1, 1, 1), "z"))
    assert not one.fits(case("conditional", (1, 1, 1), "xyz"))
    several = Estimator("several", ("labeled",), max, coordinates="several")
    assert several.fits(case("labeled", (2, 1)))
    assert not several.fits(case("labeled", (1, 1)))


# --- Runs of peers ---------------------------------------------------------------------------------------------------


def test_a_slow_call_is_ended_and_not_tried_again(monkeypatch):
    monkeypatch.setitem(runs.ALL, "fake", Estimator("fake", ("discrete",), lambda x, y: time.sleep(60)))
    start = time.perf_counter()
    row = runs.measure("10 symbols", "fake", 20, 3, timeout=0.2)
    assert time.perf_counter() - start < 30
    assert row.note == "1 of 3: took longer than 0.2 s, and was not tried again"
    assert (row.values, row.failed, row.median_seconds) == ("", True, 0.2)


@pytest.mark.slow
def test_a_process_that_ends_is_a_failure_and_the_others_go_on(monkeypatch):
    def estimate(x, y):
        if x[0] == y[0] == first:
            os._exit(1)
        return float(np.random.random() + torch.rand(1))

    first = CASES["10 symbols"].sample(20, torch.Generator().manual_seed(0))[0][0]
    monkeypatch.setitem(runs.ALL, "fake", Estimator("fake", ("discrete",), estimate))
    before = torch.get_rng_state()
    row, again = (runs.measure("10 symbols", "fake", 20, 12, timeout=30) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert "its process ended without an answer" in row.note
    assert 0 < len(row.values.split()) < 12
    assert row.values == again.values  # the global generators are seeded


def test_missing_packages_are_left_out_with_a_line(monkeypatch, capsys):
    monkeypatch.setattr(Package, "found", lambda self: self == SKLEARN)
    names = peers.at_hand()
    assert names == ["sklearn_score", "sklearn_regression", "sklearn_classification"]
    out = capsys.readouterr().out
    assert "ennemi is not installed: left out are ennemi." in out
    assert "NPEET is not installed: left out are npeet_mi, npeet_lnc, " in out
    monkeypatch.setattr(Package, "found", lambda self: False)
    with pytest.raises(SystemExit, match="no package of others is installed: there is nothing to run"):
        peers.main(["--quick"])


def test_packages_are_found_and_versioned():
    assert SKLEARN.found()
    assert SKLEARN.versioned().startswith("scikit-learn 1.")
    absent = Package("nowhere", "nowhere.at.all")
    assert not absent.found()
    assert absent.versioned() == "nowhere"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--timeout", "0"], "--timeout must be more than 0 seconds, got 0."),
        (["--npeet", "nowhere"], "--npeet: nowhere has no folder npeet: name the folder around it."),
        (["--seeds", "0"], "--seeds must be at least 1, got 0."),
    ],
)
def test_arguments_of_peers_that_make_no_sense(arguments, words, capsys):
    with pytest.raises(SystemExit):
        peers.parsed(arguments)
    assert words in capsys.readouterr().err


def test_peers_are_run_into_a_file_of_their_own_with_their_version(tmp_path, monkeypatch, capsys):
    (tmp_path / "npeet").mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(peers, "at_hand", lambda: ["sklearn_score"])
    monkeypatch.setattr(runs, "ProcessPoolExecutor", Here)
    path = tmp_path / "peers.csv"
    arguments = ["--results", str(path), "--sizes", "200", "--seeds", "2", "--jobs", "1", "--cases", "10 symbols"]
    peers.main([*arguments, "--npeet", str(tmp_path)])
    assert sys.path[-1] == str(tmp_path)
    (row,) = read(path).values()
    ours = runs.measure("10 symbols", "plug_in", 200, 2)
    assert [float(v) for v in row.values.split()] == pytest.approx([float(v) for v in ours.values.split()], abs=1e-4)
    assert row.note == SKLEARN.versioned()
    assert "| scikit-learn, counts |" in capsys.readouterr().out


class Here:
    """A pool that works in this process."""

    def __init__(self, *_, **__):
        pass

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        future = Future()
        future.set_result(function(*arguments))
        return future

    def shutdown(self, **_):
        pass


@pytest.mark.parametrize(
    ("name", "ours", "of"),
    [
        ("sklearn_regression", "ksg_1", "normal, rho 0.9"),
        ("sklearn_classification", "knn", "two normals, ±1.0"),
    ],
)
def test_neighbors_of_scikit_learn_are_near_ours(name, ours, of):
    theirs = runs.measure(of, name, 300, 1)
    assert theirs.mean == pytest.approx(runs.measure(of, ours, 300, 1).mean, abs=0.02)


def test_peers_get_arrays_in_the_form_they_ask_for(monkeypatch):
    seen = {}

    def estimate_mi(y, x, **arguments):
        seen.update(arguments, shapes=(y.shape, x.shape))
        return np.array([[math.log(2)]])

    monkeypatch.setitem(sys.modules, ENNEMI.module, types.SimpleNamespace(estimate_mi=estimate_mi))
    three = torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64), torch.zeros(5, 3)
    assert PEERS["ennemi"].estimate(*three) == pytest.approx(1)
    assert seen["shapes"] == ((5,), (5,))
    assert (seen["discrete_x"], seen["discrete_y"], seen["k"], seen["cond"].shape) == (False, True, 3, (5, 3))

    monkeypatch.setitem(sys.modules, NPEET.module, types.SimpleNamespace(micd=lambda x, y: x.shape[1] + y.shape[1]))
    assert PEERS["npeet_micd"].estimate(torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64)) == 3


def test_every_peer_has_a_kind_a_package_and_words_and_no_name_of_ours():
    assert not set(PEERS) & set(ESTIMATORS)
    for name, peer in PEERS.items():
        assert isinstance(peer, Peer)
        assert any(peer.fits(of) for of in CASES.values()), name
        assert peer.called.startswith("`")
    assert [row.estimator for row in ordered([peer_row(), a_row()])] == ["plug_in", "ennemi"]


INSTALLED = {of.package for of in PEERS.values() if importlib.util.find_spec(of.package.module.partition(".")[0])}


@pytest.mark.parametrize("package", sorted(INSTALLED, key=lambda package: package.name), ids=lambda of: of.name)
def test_installed_peers_give_a_finite_value_for_each_kind(package):
    for name, peer in PEERS.items():
        for kind in peer.kinds if peer.package == package else ():
            some = next(of.name for of in CASES.values() if of.kind == kind and peer.fits(of))
            row = runs.measure(some, name, 100, 1)
            assert math.isfinite(row.mean), (name, kind, row.note)


# --- Who is nearest --------------------------------------------------------------------------------------------------


def test_who_is_nearest_takes_the_least_error_of_each_and_counts():
    far = {"case": "normal, rho 0.9", "truth_bits": 1.197964}
    ours = [
        a_row(values="0.2075 0.2275"),
        a_row(estimator="ksg_1", values="0.2035 0.2115"),
        a_row(estimator="ksg_2", values="0.2075"),  # a sample failed
        a_row(estimator="ksg_1", n=1000, values="0.2075 0.2075"),
        a_row(**far, values="1.218 1.218"),
        a_row(case="spiral 3+3", truth_bits=1.473931, values="1.774 1.174"),
    ]
    theirs = [
        peer_row(values="0.2031 0.2119"),  # as near, to a thousandth
        peer_row(**far, values="1.213 1.213"),
        a_row(**far, estimator="npeet_mi", values="1.7 1.7", note="NPEET"),
    ]
    body, sentences = nearest.compared(ours, theirs, 5000)
    assert body == [
        ["normal, rho 0.5", "0.21", "2", "KSG 1: 0.004", "ennemi, kNN: 0.004", "ours"],
        ["normal, rho 0.9", "1.20", "2", "plug-in: 0.020", "ennemi, kNN: 0.015", "**peer**"],
        ["spiral 3+3", "1.47", "2", "plug-in: 0.300", "not run", "–"],
    ]
    assert sentences == [
        "At N = 5 000 the best of ours is as near as the best peer or nearer in 1 of 2 cases.",
        "A peer is nearer in 1: normal, rho 0.9.",
    ]
    assert len(nearest.compared(ours[:1], theirs[:0], 5000)[1]) == 1

    page = tables.page(ours, theirs)
    assert "## Who is nearest" in page
    assert "| spiral 3+3 | 1.47 | 2 | plug-in: 0.300 | not run | – |" in page
    assert "| ennemi, kNN | ennemi 1.5.0 | `estimate_mi(k=3)`" in page
    assert "| NPEET, KSG 1 | NPEET | `mi(k=3)` |" in page
    assert page.index("## Continuous") < page.index("## Who is nearest") < page.index("## Ensembles of networks")
    assert "Who is nearest" not in tables.page(ours)
    assert "Who is nearest" not in tables.page(ours, [peer_row(n=1000)])


def test_rows_of_a_case_whose_truth_was_another_are_left_out():
    body, _ = nearest.compared([a_row(truth_bits=0.3)], [peer_row()], 5000)
    assert body == [["normal, rho 0.5", "0.21", "2", "not run", "ennemi, kNN: 0.013", "–"]]


def test_estimators_are_compared_on_the_samples_that_each_was_run_on():
    ours = [a_row(seeds=3, values="0.2075 0.2115 0.9")]
    body, _ = nearest.compared(ours, [peer_row(values="0.2175 0.2075")], 5000)
    assert body == [["normal, rho 0.5", "0.21", "2", "plug-in: 0.003", "ennemi, kNN: 0.007", "ours"]]
