"""CPU time beside other packages that compute the same quantity.

Run it as ``OMP_NUM_THREADS=1 python benchmarks/peer_speed.py``; ``--only probe`` takes the rows whose name contains the
word, ``--output FILE`` writes the table as well. Both sides run in one process, on one thread and on the same arrays,
in turn. A round gives one ratio of their CPU times; the table shows the median ratio of the rounds and its range, which
is more reliable than milliseconds. A peer that is not installed is left out, with a cell that says so.

The Gaussian copula is compared with the estimator of Ince et al. (2017) as written down in NumPy: ranks by sorting
twice, quantiles of the normal for every value, one covariance, the Cholesky factors of its blocks, digamma for bias.
Its own package sorts with a stable method and looks for repeated values, which takes longer.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import linalg, special
from tables import table
from torch import Tensor

from lightning_ib import functional as ib

HEADER = ("what", "N", "D", "ours, ms", "peer", "peer, ms", "ratio, median [min–max]")
_ROUND_SECONDS = 0.1  # how long each side runs in a round, in whole calls
_GCMI = "gcmi's way in NumPy"


class Comparison(NamedTuple):
    """One row of the table: a quantity, its samples, dimensions and symbols, and a call of either side."""

    what: str
    n: int
    d: str
    ours: Callable[[], object]
    peer: str
    theirs: Callable[[], object] | None


def normal(n: int, d: int, g: torch.Generator) -> Tensor:
    """Rows of independent standard normals."""
    return torch.randn(n, d, generator=g, dtype=torch.float64)


def classes(n: int, d: int, c: int) -> tuple[Tensor, Tensor]:
    """Rows around a center for each class, √(10/D) / 2 in every coordinate, and the classes."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(c, (n,), generator=g)
    return normal(n, d, g) + math.sqrt(10 / d) / 2 * normal(c, d, g)[y], y


# -- Gaussian copula ---------------------------------------------------------------------------------------------------


def _scores(values: np.ndarray) -> np.ndarray:
    """Quantiles of the normal at the ranks of each row, ties in the order they come."""
    ranks = values.argsort(axis=1).argsort(axis=1) + 1.0
    return np.asarray(special.ndtri(ranks / (values.shape[1] + 1)))


def _log_root(covariance: np.ndarray) -> float:
    """Half the logarithm of a determinant."""
    return float(np.log(np.diagonal(linalg.cholesky(covariance, lower=True))).sum())


def _bias(n: int, d: int) -> float:
    """Of the entropy of a normal variable with estimated covariance, in nats (Misra, Singh & Demchuk 2005)."""
    return float(special.psi((n - np.arange(1, d + 1)) / 2).sum() + d * math.log(2 / (n - 1))) / 2


def by_gcmi(x: np.ndarray, y: np.ndarray) -> float:
    """The estimate of two real variables, in bits: the blocks of one covariance."""
    scores = np.concatenate([_scores(np.ascontiguousarray(x.T)), _scores(np.ascontiguousarray(y.T))])
    d, n = len(x.T), len(x)
    centered = scores - scores.mean(axis=1, keepdims=True)
    covariance = centered @ centered.T / (n - 1)
    entropies = [
        _log_root(block) - _bias(n, len(block)) for block in (covariance[:d, :d], covariance[d:, d:], covariance)
    ]
    return (entropies[0] + entropies[1] - entropies[2]) / math.log(2)


def by_gcmi_of_labels(t: np.ndarray, y: np.ndarray) -> float:
    """The estimate of a real variable and labels, in bits: a covariance for every class, and one of all rows."""

    def entropy_of(scores: np.ndarray) -> float:
        d, n = scores.shape
        centered = scores - scores.mean(axis=1, keepdims=True)
        return _log_root(centered @ centered.T / (n - 1)) - _bias(n, d)

    scores = _scores(np.ascontiguousarray(t.T))
    given = [float((y == c).mean()) * entropy_of(scores[:, y == c]) for c in np.unique(y)]
    return (entropy_of(scores) - sum(given)) / math.log(2)


def copulas() -> Iterator[Comparison]:
    """Both copula estimators."""
    for n, d in ((60_000, 10), (2000, 128)):
        g = torch.Generator().manual_seed(0)
        x = normal(n, d, g)
        y = x[:, :5] + normal(n, 5, g)
        ours, theirs = partial(ib.mutual_information_gaussian_copula, x, y), partial(by_gcmi, x.numpy(), y.numpy())
        yield Comparison("Gaussian copula", n, f"{d} + 5", ours, _GCMI, theirs)
    t, y = classes(2000, 128, 3)
    ours = partial(ib.mutual_information_gaussian_copula_labels, t, y)
    theirs = partial(by_gcmi_of_labels, t.numpy(), y.numpy())
    yield Comparison("Gaussian copula of labels", 2000, "128, 3 classes", ours, _GCMI, theirs)


# -- Nearest neighbors -------------------------------------------------------------------------------------------------


def neighbors() -> Iterator[Comparison]:
    """Two real variables, some with repeated values, and a real variable with labels."""
    for n, d in ((2000, 1), (10_000, 1), (2000, 3), (10_000, 3), (2000, 5), (10_000, 5), (2000, 10)):
        g = torch.Generator().manual_seed(0)
        x = normal(n, d, g)
        y = x + normal(n, d, g)
        ours, arrays = partial(ib.mutual_information_ksg, x, y), (x.numpy(), y.numpy())
        yield Comparison("KSG", n, f"{d} + {d}", ours, "NPEET", installed("npeet", partial(_npeet, "mi", *arrays)))
        if d == 1:
            by_sklearn = installed("sklearn", partial(_mutual_info_regression, *arrays))
            yield Comparison("KSG", n, "1 + 1", ours, "scikit-learn", by_sklearn)
            by_ennemi = installed("ennemi", partial(_ennemi, *arrays))
            yield Comparison("KSG", n, "1 + 1", ours, "ennemi", by_ennemi)
        rectified = x.relu()
        ours, theirs = (
            partial(ib.mutual_information_mixed, rectified, y),
            partial(_npeet, "mi", rectified.numpy(), y.numpy()),
        )
        yield Comparison("mixed, rectified", n, f"{d} + {d}", ours, "NPEET", installed("npeet", theirs))
    for n, d in ((2000, 1), (10_000, 1), (2000, 3), (10_000, 3), (2000, 10)):
        t, y = classes(n, d, 10)
        ours, theirs = partial(ib.mutual_information_knn, t, y), partial(_npeet, "micd", t.numpy(), y.numpy()[:, None])
        yield Comparison("labeled neighbors", n, f"{d}, 10 classes", ours, "NPEET micd", installed("npeet", theirs))
        if d == 1:
            by_sklearn = installed("sklearn", partial(_mutual_info_classif, t.numpy(), y.numpy()))
            yield Comparison("labeled neighbors", n, "1, 10 classes", ours, "scikit-learn", by_sklearn)


def _npeet(name: str, x: np.ndarray, y: np.ndarray) -> float:
    return float(getattr(importlib.import_module("npeet.entropy_estimators"), name)(x, y, k=3))


def _ennemi(x: np.ndarray, y: np.ndarray) -> float:
    return float(importlib.import_module("ennemi").estimate_mi(y[:, 0], x[:, 0], k=3)[0, 0])


def _mutual_info_regression(x: np.ndarray, y: np.ndarray) -> float:
    from sklearn.feature_selection import mutual_info_regression

    return float(mutual_info_regression(x, y[:, 0])[0])


def _mutual_info_classif(t: np.ndarray, y: np.ndarray) -> float:
    from sklearn.feature_selection import mutual_info_classif

    return float(mutual_info_classif(t, y)[0])


# -- Linear probe ------------------------------------------------------------------------------------------------------


def logistic_by_scikit_learn(t: np.ndarray, y: np.ndarray) -> float:
    """Held-out cross-entropy in nats, five folds, the ridge as it comes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=1))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return float(log_loss(y, cross_val_predict(model, t, y, cv=folds, method="predict_proba")))


def probes() -> Iterator[Comparison]:
    """The linear probe, which chooses its ridge, and a logistic regression with one that is given."""
    for n, d, c in ((2000, 10, 2), (2000, 10, 10), (2000, 128, 10)):
        t, y = classes(n, d, c)
        theirs = installed("sklearn", partial(logistic_by_scikit_learn, t.numpy(), y.numpy()))
        ours = partial(ib.probe_information, t, y)
        yield Comparison("linear probe", n, f"{d}, {c} classes", ours, "scikit-learn, C = 1", theirs)


# -- Counts ------------------------------------------------------------------------------------------------------------


def entropy_by_numpy(ids: np.ndarray) -> float:
    """The plug-in entropy in bits."""
    shares = np.unique(ids, return_counts=True)[1] / len(ids)
    return float(-(shares * np.log2(shares)).sum())


def counts() -> Iterator[Comparison]:
    """Entropies and informations of ids."""
    n, g = 60_000, torch.Generator().manual_seed(0)
    few = torch.randint(2**62, (1000,), generator=g)
    for name, ids in (
        ("100 symbols", torch.randint(100, (n,), generator=g)),
        ("50 000 symbols", torch.randint(50_000, (n,), generator=g)),
        ("1000 symbols of 64 bits", few[torch.randint(1000, (n,), generator=g)]),
        ("64 bits, all different", torch.randint(2**62, (n,), generator=g)),
    ):
        yield Comparison("entropy", n, name, partial(ib.entropy, ids), "NumPy", partial(entropy_by_numpy, ids.numpy()))
        npeet = installed("npeet", partial(_npeet_entropy, ids.numpy()))
        if name == "100 symbols":
            yield Comparison("entropy", n, name, partial(ib.entropy, ids), "NPEET", npeet)
    for symbols in (10, 1000):
        a, b = torch.randint(symbols, (2, n), generator=g)
        theirs = installed("sklearn", partial(_mutual_info_score, a.numpy(), b.numpy()))
        ours, name = partial(ib.mutual_information, a, b), f"{symbols} + {symbols} symbols"
        yield Comparison("mutual information of ids", n, name, ours, "scikit-learn", theirs)


def _npeet_entropy(ids: np.ndarray) -> float:
    return float(importlib.import_module("npeet.entropy_estimators").entropyd(ids))


def _mutual_info_score(a: np.ndarray, b: np.ndarray) -> float:
    from sklearn.metrics import mutual_info_score

    return float(mutual_info_score(a, b))


# -- Timing ------------------------------------------------------------------------------------------------------------


def installed(package: str, call: Callable[[], object]) -> Callable[[], object] | None:
    """The call, or None where the package is absent."""
    return call if importlib.util.find_spec(package) else None


def seconds(call: Callable[[], object], calls: int) -> float:
    """CPU seconds of one call, the mean of several."""
    start = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - start) / calls


def measured(one: Comparison, rounds: int) -> list[str]:
    """The cells of a row."""
    cells = [one.what, f"{one.n:,}".replace(",", " "), one.d]
    if one.theirs is None:
        return [*cells, "", f"{one.peer}: not installed", "", ""]
    sides = one.ours, one.theirs
    once = [min(seconds(side, 1) for _ in range(2)) for side in sides]  # and warm
    calls = [max(1, round(_ROUND_SECONDS / max(taken, 1e-5))) for taken in once]
    pairs = [[seconds(side, k) for side, k in zip(sides, calls)] for _ in range(rounds)]
    ours, theirs = (1000 * statistics.median(side) for side in zip(*pairs))
    ratios = [a / b for a, b in pairs]
    ratio = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}–{max(ratios):.2f}]"
    return [*cells, f"{ours:.2f}", one.peer, f"{theirs:.2f}", ratio]


def machine() -> str:
    """The processor, its cores and the versions, as a sentence."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy", "scikit-learn"))
    return f"{names[0]}, {os.cpu_count()} cores, one thread; Python {platform.python_version()}, {packages}."


def main() -> None:
    """Time the rows, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often both sides take turns")
    parser.add_argument("--only", default="", help="the rows whose name contains this")
    parser.add_argument("--output", type=Path, help="a file for the table")
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("the two sides are compared on one thread: set OMP_NUM_THREADS=1.")
    rows = [one for group in (neighbors, copulas, probes, counts) for one in group() if options.only in one.what]
    text = "\n\n".join(
        [
            "# CPU time beside other packages",
            f"`OMP_NUM_THREADS=1 python benchmarks/peer_speed.py --rounds {options.rounds}` on {machine()}",
            table(HEADER, [measured(one, options.rounds) for one in rows]),
        ]
    )
    print(text)
    if options.output:
        options.output.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
