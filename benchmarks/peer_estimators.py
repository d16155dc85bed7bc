"""Estimators of other packages, as they are called beside ours: documented defaults, three neighbors.

None of the packages is needed: each is imported where it is called. Values in nats are turned into bits.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import math
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata, util
from typing import Any

import torch
from cases import Kind
from estimators import REAL, REAL_OR_LABELED, Estimate, Estimator
from torch import Tensor


@dataclass(frozen=True)
class Package:
    """A package that holds estimators.

    Attributes:
        name: its name in the index of packages, and in tables.
        module: what is imported.
    """

    name: str
    module: str

    def found(self) -> bool:
        """Whether it can be imported."""
        return util.find_spec(self.module.partition(".")[0]) is not None

    def versioned(self) -> str:
        """Its name and version; the name alone where the version is unknown."""
        try:
            return f"{self.name} {metadata.version(self.name)}"
        except metadata.PackageNotFoundError:
            return self.name


INFOMEASURE = Package("infomeasure", "infomeasure")
SKLEARN = Package("scikit-learn", "sklearn.feature_selection")
ENNEMI = Package("ennemi", "ennemi")
NPEET = Package("NPEET", "npeet.entropy_estimators")
TORCH_MIST = Package("torch-mist", "torch_mist.utils.estimation")
SOFT_ENTROPY = Package("soft-entropy", "soft_entropy.pytorch")


@dataclass(frozen=True, kw_only=True)
class Peer(Estimator):
    """An estimator of another package.

    Attributes:
        package: where it is from.
        called: the call, in words, for the table of peers.
        warm: whether to call it once before it is timed, since it compiles or imports then.
    """

    package: Package
    called: str
    warm: bool = True

    @property
    def source(self) -> str:
        """Name and version of the package."""
        return self.package.versioned()

    def prepare(self, kind: Kind) -> None:
        """Import and compile what it calls on such cases, outside the time of a call."""
        sys.modules.setdefault("bottleneck", None)  # type: ignore[arg-type]  # pandas would take bottleneck.py for it
        with contextlib.suppress(Exception):  # a call then raises it once more, as a failure
            importlib.import_module(self.package.module)
            if self.warm:
                call_once(self, kind)


@cache
def call_once(peer: Peer, kind: Kind) -> None:
    """Call it in this process, on a few rows of a kind."""
    ids, reals = torch.arange(40) % 2, torch.arange(80, dtype=torch.float64).reshape(40, 2).sin()
    symbols = kind == "discrete" or kind == "conditional" and peer.symbols is not None and "xyz" in peer.symbols
    x = ids if symbols else reals[:, : 1 if peer.coordinates == "one" else 2]
    y = x.flip(0) if kind != "labeled" else ids
    given = [x.roll(7, 0)] if kind == "conditional" else []
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer.estimate(x, y, *given)
    finally:
        logging.disable(before)


def function(package: Package, name: str) -> Any:
    """A function of a package that may be missing."""
    return getattr(importlib.import_module(package.module), name)


def column(values: Tensor) -> Any:
    """The only coordinate, or ids."""
    return values.reshape(len(values), -1)[:, 0].numpy()


def infomeasure(approach: str, x: Tensor, y: Tensor, z: Tensor | None = None, **arguments: Any) -> float:
    """Any of its approaches, conditional on Z where there is one."""
    given = {} if z is None else {"cond": z.numpy()}
    measure = "mutual_information" if z is None else "conditional_mutual_information"
    value = function(INFOMEASURE, measure)(x.numpy(), y.numpy(), approach=approach, base=2, **given, **arguments)
    return float(value)


def sklearn_score(x: Tensor, y: Tensor) -> float:
    """Counting."""
    return float(importlib.import_module("sklearn.metrics").mutual_info_score(x.numpy(), y.numpy())) / math.log(2)


def sklearn_neighbors(name: str, x: Tensor, y: Tensor) -> float:
    """Its selection of features, of a single one."""
    values = function(SKLEARN, name)(x.numpy(), column(y), n_neighbors=3, random_state=0)
    return float(values[0]) / math.log(2)


def ennemi(x: Tensor, y: Tensor, z: Tensor | None = None) -> float:
    """All of its forms: ids are discrete."""
    discrete = {f"discrete_{n}": not v.is_floating_point() for n, v in (("x", x), ("y", y))}
    given = None if z is None else z.numpy()
    value = function(ENNEMI, "estimate_mi")(column(y), column(x), k=3, cond=given, max_threads=1, **discrete)
    return float(value[0, 0]) / math.log(2)


def npeet(name: str, *variables: Tensor, **arguments: Any) -> float:
    """Any of its functions; it wants columns."""
    return float(function(NPEET, name)(*(v.reshape(len(v), -1).numpy() for v in variables), **arguments))


@contextlib.contextmanager
def own_temporary_folder() -> Iterator[None]:
    """Temporary files of a call, apart from those of calls beside it: torch-mist names its weights alike in all."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before


def torch_mist(estimator: str, negatives: int, x: Tensor, y: Tensor) -> float:
    """A joint critic at the budget of ours: trained on one half of the rows, read on the other."""
    x, y = (((v - v.mean(0)) / v.std(0)).float() for v in (x, y))
    half, most = len(x) // 2, len(x) // 8
    parts = [{"x": x[rows], "y": y[rows]} for rows in (slice(most, half), slice(most), slice(half, None))]
    with own_temporary_folder(), contextlib.redirect_stdout(io.StringIO()):
        value = function(TORCH_MIST, "estimate_mi")(
            parts[0],
            estimator=estimator,
            valid_data=parts[1],
            test_data=parts[2],
            max_iterations=1000,
            optimizer_params={"lr": 2e-3},
            batch_size=256,
            verbose=False,
            logger=False,
            critic_type="joint",
            hidden_dims=[64],
            neg_samples=negatives,
        )
    return float(value[0] if isinstance(value, tuple) else value) / math.log(2)


def soft_entropy(x: Tensor, y: Tensor) -> float:
    """A share of log2 of its hundred bins, in bits."""
    return float(function(SOFT_ENTROPY, "soft_mutual_information")(x.float(), y)) * math.log2(100)


COUNTED: tuple[Kind, ...] = ("discrete", "conditional")
NEIGHBORS: tuple[Kind, ...] = ("continuous", "mixed", "conditional")
SLOW = ((5000, 3),)
TRAINED = ((0, 3),)

APPROACHES = {
    "discrete": "plug-in",
    "miller_madow": "Miller–Madow",
    "grassberger": "Grassberger",
    "chao_shen": "Chao–Shen",
    "shrink": "James–Stein",
    "chao_wang_jost": "Chao–Wang–Jost",
    "zhang": "Zhang",
    "bonachela": "Bonachela",
    "ansb": "asymptotic NSB",
    "nsb": "NSB",
}
"""infomeasure's estimators for ids that need no parameter."""
SLOWER = {"nsb": ((0, 3), (5000, 0)), "zhang": ((10_000, 3),)}
"""Those of them that take seconds or minutes a call, and on how many samples they are run."""


def _peers() -> dict[str, Peer]:
    found: dict[str, Peer] = {}

    def add(
        name: str, label: str, package: Package, kinds: tuple[Kind, ...], estimate: Estimate, called: str, **how: Any
    ) -> None:
        found[name] = Peer(f"{package.name}, {label}", kinds, estimate, package=package, called=called, **how)

    for approach, label in APPROACHES.items():
        called = f'`mutual_information(approach="{approach}", base=2)`'
        how: dict[str, Any] = {"symbols": ("xyz",), "limits": SLOWER.get(approach, ())}
        add(f"infomeasure_{approach}", label, INFOMEASURE, COUNTED, partial(infomeasure, approach), called, **how)
    call = partial(infomeasure, "metric", k=3)
    called = '`mutual_information(approach="metric", k=3, base=2)`'
    add("infomeasure_ksg", "KSG 1", INFOMEASURE, NEIGHBORS, call, called, symbols=("",), limits=SLOW)
    call = partial(infomeasure, "renyi", k=3, alpha=1.01)
    called = '`mutual_information(approach="renyi", k=3, alpha=1.01, base=2)`'
    add("infomeasure_renyi", "Rényi kNN", INFOMEASURE, REAL, call, called, limits=SLOW)

    add("sklearn_score", "counts", SKLEARN, ("discrete",), sklearn_score, "`mutual_info_score`")
    for name, label, kinds in (
        ("mutual_info_regression", "regression", REAL + ("mixed",)),
        ("mutual_info_classif", "classification", ("labeled",)),
    ):
        call = partial(sklearn_neighbors, name)
        called = f"`{name}(n_neighbors=3)`, one coordinate; what is below 0 becomes 0"
        add(f"sklearn_{label}", label, SKLEARN, kinds, call, called, coordinates="one")

    called = "`estimate_mi(k=3)`, with `discrete_x`, `discrete_y` and `cond` as they fit, one coordinate of X and Y"
    every: tuple[Kind, ...] = ("discrete", *REAL_OR_LABELED, "mixed", "conditional")
    add("ennemi", "kNN", ENNEMI, every, ennemi, called, coordinates="one", symbols=("", "y", "xyz"))

    how = {"symbols": ("",), "limits": SLOW}
    add("npeet_mi", "KSG 1", NPEET, NEIGHBORS, partial(npeet, "mi"), "`mi(k=3)`", **how)
    for name, k, alpha, coordinates in (("npeet_lnc", 3, 0.25, "one"), ("npeet_lnc_30", 30, 0.001, "several")):
        call, called = partial(npeet, "mi", k=k, alpha=alpha), f"`mi(k={k}, alpha={alpha})`"
        add(name, f"KSG with LNC, k = {k}", NPEET, REAL, call, called, coordinates=coordinates, limits=SLOW)
    add("npeet_micd", "labeled kNN", NPEET, ("labeled",), partial(npeet, "micd"), "`micd(k=3)`", limits=SLOW)
    add("npeet_midd", "counts", NPEET, ("discrete",), partial(npeet, "midd"), "`midd`")
    add("npeet_cmidd", "counts given Z", NPEET, ("conditional",), partial(npeet, "cmidd"), "`cmidd`", symbols=("xyz",))

    for name, label, negatives in (("infonce", "InfoNCE", 16), ("smile", "SMILE", 1), ("js", "JS", 1)):
        called = (
            f'`estimate_mi(estimator="{name}", critic_type="joint", neg_samples={negatives}, hidden_dims=[64])`, '
            "coordinates standardized, 1000 steps of 256 rows with early stopping on one half, read on the other"
        )
        call = partial(torch_mist, name, negatives)
        add(f"torch_mist_{name}", label, TORCH_MIST, REAL, call, called, limits=TRAINED, warm=False)
    called = "`soft_mutual_information(n_bins=100)`, times log2(100)"
    add("soft_entropy", "soft entropy", SOFT_ENTROPY, ("labeled",), soft_entropy, called, coordinates="several")
    return found


PEERS: dict[str, Peer] = _peers()
"""The estimators of others by name."""
