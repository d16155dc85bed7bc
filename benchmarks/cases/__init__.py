"""Variables with known information: samplers, and the truth in bits.

A truth comes from a closed form or from quadrature of the densities, independently of any estimator;
``tests/reference/test_truth_cases.py`` gets each in a second, independent way. Many of the cases are those of Czyż et
al. 2023 ("Beyond Normal", NeurIPS) and of Gao et al. 2017 ("Estimating Mutual Information for Discrete-Continuous
Mixtures", NeurIPS).
"""

from __future__ import annotations

from cases import conditional, continuous, discrete, labeled, mixed, networks
from cases.case import KINDS, Case, Kind, normal

__all__ = ["CASES", "KINDS", "Case", "Kind", "normal"]

_ALL = [case for module in (discrete, continuous, labeled, mixed, networks, conditional) for case in module.cases()]

CASES: dict[str, Case] = {case.name: case for kind in KINDS for case in _ALL if case.kind == kind}
"""The cases by name, grouped by kind."""
