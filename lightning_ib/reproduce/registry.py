"""The experiments by name."""

from __future__ import annotations

import importlib
from typing import NamedTuple

from lightning_ib.reproduce.errors import ExperimentError
from lightning_ib.reproduce.experiment import Finding, Progress, Settings


class Experiment(NamedTuple):
    """A published experiment.

    The module ``lightning_ib.reproduce.<name>`` has a function ``run(settings, progress)`` that returns a
    :class:`Finding`; it is imported when it is run.

    Attributes:
        name: as it is asked for.
        title: what it shows, in a line.
        source: the paper, and where its code is.
        quick: how long it takes with ``--quick``, on one core.
        full: how long it takes in the setting of the paper.
        needs_mnist: whether it reads MNIST.
    """

    name: str
    title: str
    source: str
    quick: str
    full: str
    needs_mnist: bool = False

    def run(self, settings: Settings, progress: Progress) -> Finding:
        """Run it; the settings that every experiment has come first.

        Raises:
            ExperimentError: data are missing, or a setting cannot be.
        """
        finding: Finding = importlib.import_module(f"lightning_ib.reproduce.{self.name}").run(settings, progress)
        common = {"setting": "quick" if settings.quick else "the paper's", "device": settings.device}
        return finding._replace(settings=common | dict(finding.settings))


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "collapse",
            "neural collapse, compression and weight decay, over a long training on MNIST",
            "Sakamoto & Sato, Explaining Grokking and Information Bottleneck through Neural Collapse Emergence, "
            "ICLR 2026, arXiv 2509.20829; code: github.com/keitaroskmt/collapse-dynamics",
            "3 minutes",
            "about 6 hours",
            needs_mnist=True,
        ),
        Experiment(
            "generalization",
            "I(X;Z|Y) of a code beside the generalization gap, over many small networks",
            "Kawaguchi et al., How Does Information Bottleneck Help Deep Learning?, ICML 2023, "
            "arXiv 2305.18887; code: github.com/xu-ji/information-bottleneck",
            "1 minute",
            "6 minutes",
        ),
        Experiment(
            "dropout",
            "finite I(X;T) of layers with Gaussian and information dropout, whose noise is known",
            "Adilova et al., Information Plane Analysis for Dropout Neural Networks, ICLR 2023, "
            "arXiv 2303.00596; code: github.com/link-er/IP_dropout",
            "1 minute",
            "10 hours",
            needs_mnist=True,
        ),
        Experiment(
            "lossy",
            "information of compressed inputs and layers, by weighted Kozachenko–Leonenko",
            "Butakov et al., Information Bottleneck Analysis of Deep Neural Networks via Lossy Compression, ICLR 2024, "
            "arXiv 2305.08013; code: github.com/VanessB/Information-v3",
            "2 minutes",
            "7 hours in one run",
            needs_mnist=True,
        ),
    )
}
"""Name → experiment."""


def experiment_of(name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        ExperimentError: there is none.

    Example:
        >>> experiment_of("collapse").needs_mnist
        True
    """
    if name not in EXPERIMENTS:
        *others, last = sorted(EXPERIMENTS)
        raise ExperimentError(f"there is no experiment {name!r}: give {', '.join(others)} or {last}.")
    return EXPERIMENTS[name]
