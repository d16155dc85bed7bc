"""The values of a layer at one resolution."""

from __future__ import annotations

from typing import NamedTuple


class Resolution(NamedTuple):
    """The values of one layer at one resolution: one pool, one number of bins, one number of samples.

    Informations and entropies are in ``unit``. A missing value is NaN.

    Attributes:
        layer: the name of the module, as in ``named_modules()``.
        pool: the label of the pool.
        n_bins: how many bins a coordinate has.
        n_samples: N, the number of samples counted.
        h_t: H(T), the entropy of the discretized representation.
        i_ty: I(T;Y), the information about the target.
        h_y: H(Y), the entropy of the target over the same samples.
        saturation: H(T) / log N. Near 1 every sample has a symbol of its own: the values describe the sample.
        n_codes: how many different symbols T showed.
        singleton_fraction: the fraction of the samples with a symbol seen once.
        unit: ``"bits"`` or ``"nats"``.
    """

    layer: str
    pool: str
    n_bins: int
    n_samples: int
    h_t: float
    i_ty: float
    h_y: float
    saturation: float
    n_codes: int
    singleton_fraction: float
    unit: str
