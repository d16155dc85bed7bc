"""The estimators that are compared with the truth, by name: the kinds of cases for each, and the call."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from cases import Case, Kind
from torch import Tensor

from lightning_ib.functional import (
    bucketize,
    conditional_mutual_information,
    hash_table,
    mutual_information,
    quantiles,
    row_ids,
)

Estimate = Callable[..., float]

N_BINS = 10
NOISE_VARIANCE = 0.01
"""Of the kernel densities: a hundredth of the variance within a class, so that their truth is the case's."""


@dataclass(frozen=True)
class Estimator:
    """How an estimator is run.

    Attributes:
        label: its name in tables.
        kinds: the kinds of cases it is meant for, and run on.
        estimate: ``(x, y)``, or ``(x, y, z)`` of conditional cases, → bits.
        rows: of how many rows at most it makes use: the first ones are taken.
        limits: pairs of an N and a number of samples: from that N on it is run on at most so many, 0 to skip it.
        symbols: of conditional cases it is run on those whose ids are the variables in one of these; None for all.
        coordinates: ``"one"`` where X and Y must have a single one, ``"several"`` where X needs more.
    """

    label: str
    kinds: tuple[Kind, ...]
    estimate: Estimate
    rows: int | None = None
    limits: tuple[tuple[int, int], ...] = ()
    symbols: tuple[str, ...] | None = None
    coordinates: Literal["one", "several"] | None = None

    @property
    def source(self) -> str:
        """The package it comes from, with its version; empty for this one."""
        return ""

    def prepare(self, kind: Kind) -> None:
        """Import what it calls on such cases, where that takes long and is no part of a call."""

    def fits(self, case: Case) -> bool:
        """Whether it is meant for a case."""
        if self.coordinates == "one" and max(case.dims[:2]) > 1 or self.coordinates == "several" and case.dims[0] == 1:
            return False
        if case.kind == "conditional" and self.symbols is not None and case.symbols not in self.symbols:
            return False
        return case.kind in self.kinds

    def seeds(self, n: int, wanted: int) -> int:
        """On how many samples of N rows it is run, where some number is wanted."""
        return min([wanted, *(most for start, most in self.limits if n >= start)])

    def policy(self) -> str:
        """The limits that keep it affordable, in words; may be empty."""
        words = [f"the first {spaced(self.rows)} rows only"] if self.rows else []
        for start, most in self.limits:
            at = f" at N = {spaced(start)} and above" if start else ""
            words.append(f"{most} samples{at}" if most else f"not run{at}")
        return ", ".join(words)


def spaced(n: int) -> str:
    """10 000."""
    return f"{n:,}".replace(",", " ")


def functional(name: str, **arguments: Any) -> Callable[..., Any]:
    """A function of :mod:`lightning_ib.functional`, imported where it is called, so that a lack is one failure."""

    def call(*variables: Tensor) -> Any:
        function = getattr(importlib.import_module("lightning_ib.functional"), name)
        return function(*variables, **arguments, unit="bits")

    return call


def real_or_labeled(name: str, **arguments: Any) -> Callable[..., Any]:
    """A function of two real variables, and the one of its name with ``_labels`` where Y is a class label."""

    def call(x: Tensor, y: Tensor) -> Any:
        return functional(name if y.is_floating_point() else f"{name}_labels", **arguments)(x, y)

    return call


def ids(values: Tensor) -> Tensor:
    """Discrete ids as they are; rows of real numbers by ten bins of equal mass per coordinate."""
    if values.ndim == 1:
        return values
    edges = quantiles(values, q=[i / N_BINS for i in range(1, N_BINS)])
    return row_ids(bucketize(values, edges=edges), table=hash_table(n_coordinates=values.shape[1], n_codes=N_BINS))


def counted(correction: str | None, x: Tensor, y: Tensor, z: Tensor | None = None) -> float:
    """Counting, with a correction for bias."""
    arguments: dict[str, Any] = {"correction": correction} if correction else {}
    if z is None:
        return mutual_information(ids(x), ids(y), **arguments, unit="bits")
    return conditional_mutual_information(ids(x), ids(y), given=ids(z), **arguments, unit="bits")


def rows(values: Tensor) -> Tensor:
    """Real rows; different symbols lie farther apart than any real numbers here."""
    return values if values.ndim == 2 else 1e6 * values.double().unsqueeze(1)


def on_rows(name: str, **arguments: Any) -> Estimate:
    """A function of any two variables as real rows: symbols are numbers that are far apart."""

    def call(x: Tensor, y: Tensor) -> float:
        return float(functional(name, **arguments)(rows(x), rows(y)))

    return call


def given(name: str, **arguments: Any) -> Estimate:
    """A function of two variables and a condition."""

    def call(x: Tensor, y: Tensor, z: Tensor) -> float:
        return float(functional(name, given=z, **arguments)(x, y))

    return call


def kde(which: int, x: Tensor, y: Tensor) -> float:
    """From the lower or from the upper bounds."""
    bounds = functional("mutual_information_bounds_kde", noise_variance=NOISE_VARIANCE)(x, y)
    return float(bounds[which])


ANY: tuple[Kind, ...] = ("discrete", "continuous", "labeled", "mixed")
COUNTED: tuple[Kind, ...] = (*ANY, "conditional")
REAL: tuple[Kind, ...] = ("continuous",)
LABELED: tuple[Kind, ...] = ("labeled",)
CONDITIONAL: tuple[Kind, ...] = ("conditional",)
REAL_OR_LABELED: tuple[Kind, ...] = ("continuous", "labeled")

KSG = "mutual_information_ksg"
PROBE = "usable_information"

# So that all of it takes two cores a few hours: these take seconds a call.
SLOW = ((10_000, 3),)
CRITICS = ((5000, 3),)
JOINT_CRITICS = ((0, 3),)

ESTIMATORS: dict[str, Estimator] = {
    "plug_in": Estimator("plug-in", COUNTED, partial(counted, None)),
    "miller_madow": Estimator("Miller–Madow", COUNTED, partial(counted, "miller_madow")),
    "grassberger": Estimator("Grassberger", COUNTED, partial(counted, "grassberger")),
    "chao_shen": Estimator("Chao–Shen", COUNTED, partial(counted, "chao_shen")),
    "james_stein": Estimator("James–Stein", COUNTED, partial(counted, "james_stein")),
    "jackknife": Estimator("jackknife", COUNTED, partial(counted, "jackknife")),
    "chao_wang_jost": Estimator("Chao–Wang–Jost", COUNTED, partial(counted, "chao_wang_jost")),
    "nsb": Estimator("NSB", COUNTED, partial(counted, "nsb")),
    "ksg_1": Estimator("KSG 1", REAL, functional(KSG, k=3, algorithm=1)),
    "ksg_2": Estimator("KSG 2", REAL, functional(KSG, k=3, algorithm=2)),
    "knn": Estimator("labeled kNN", LABELED, functional("mutual_information_knn", k=3)),
    "mixed": Estimator("mixed kNN", ANY, on_rows("mutual_information_mixed", k=3)),
    "projected": Estimator(
        "projected kNN", (*REAL_OR_LABELED, "mixed"), functional("mutual_information_projected", k=3)
    ),
    "ksg_corrected": Estimator("corrected KSG", REAL, functional(f"{KSG}_corrected", k=3), limits=SLOW),
    "copula": Estimator("Gaussian copula", REAL_OR_LABELED, real_or_labeled("mutual_information_gaussian_copula")),
    "renyi": Estimator(
        "matrix Rényi",
        REAL_OR_LABELED,
        real_or_labeled("mutual_information_renyi", alpha=1.01),
        rows=1000,
        limits=((10_000, 0),),
    ),
    "kde_lower": Estimator("KDE lower", LABELED, partial(kde, 0)),
    "kde_upper": Estimator("KDE upper", LABELED, partial(kde, 1)),
    "probe_linear": Estimator("linear probe", LABELED, functional(PROBE, probe="linear")),
    "probe_mlp": Estimator("MLP probe", LABELED, functional(PROBE, probe="mlp")),
    "infonce": Estimator("InfoNCE", REAL, functional("mutual_information_infonce"), limits=CRITICS),
    "infonce_joint": Estimator(
        "InfoNCE, joint", REAL, functional("mutual_information_infonce", critic="joint"), limits=JOINT_CRITICS
    ),
    "smile": Estimator("SMILE", REAL, functional("mutual_information_smile"), limits=CRITICS),
    "smile_joint": Estimator(
        "SMILE, joint", REAL, functional("mutual_information_smile", critic="joint"), limits=JOINT_CRITICS
    ),
    "ksg_given": Estimator("KSG given Z", CONDITIONAL, given(f"conditional_{KSG}", k=3), symbols=("",)),
    "mixed_given": Estimator("mixed kNN given Z", CONDITIONAL, given("conditional_mutual_information_mixed", k=3)),
    "copula_given": Estimator(
        "Gaussian copula given Z",
        CONDITIONAL,
        given("conditional_mutual_information_gaussian_copula"),
        symbols=("", "y", "z"),
    ),
}
"""The estimators by name."""
