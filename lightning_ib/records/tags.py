"""The names that values are logged under, and back from a name to what it names. Nothing but the standard library.

On the first page, ``<prefix>/…``, stand I(X;T), I(T;Y) and H(T) of each layer and the values of the estimators. All
else, and all a chart shows under a unit, stands in ``<prefix>_diagnostics/…``, where a value with a unit has it in its
name: TensorBoard finds what a chart shows by name alone, in all runs of a folder, whatever the unit of each.
"""

from __future__ import annotations

from typing import NamedTuple

QUANTITIES = ("I_XT", "I_TY", "H_T")
"""What is counted of each layer and stands on the first page."""

UNITS = ("bits", "nats")

SHARES = ("saturation", "singletons", "outside", "accuracy")
"""What is counted and has no unit."""

_COUNTED = {
    *QUANTITIES,
    *(f"{quantity}_{end}" for quantity in QUANTITIES for end in ("lower", "upper")),
    *("I_TY_shuffled", "I_TY_fano", "IB"),
    *SHARES,
}
RESERVED = _COUNTED.union(UNITS)
"""What no estimator can be called: a name would have two meanings."""


class Tag(NamedTuple):
    """What a name says.

    Attributes:
        quantity: such as ``"I_TY"`` or ``"saturation"``.
        layer: the name of the module.
        estimator: the name of the estimator; empty for what is counted.
        unit: ``"bits"`` or ``"nats"``, where the name holds it.
    """

    quantity: str
    layer: str
    estimator: str = ""
    unit: str = ""


def diagnostics(prefix: str) -> str:
    """The first part of the names that are not on the first page."""
    return f"{prefix}_diagnostics"


def is_diagnostic(quantity: str, estimator: str = "") -> bool:
    """Whether a value has no place on the first page: a bound, a baseline, a parameter, or a share that is counted."""
    if not estimator:
        return quantity not in QUANTITIES
    return quantity.endswith(("_lower", "_upper", "_floor")) or quantity in ("noise_variance", "kernel_width")


def tag(prefix: str, quantity: str, layer: str, *, estimator: str = "", unit: str = "") -> str:
    """The name of a value.

    Args:
        prefix: the callback's.
        quantity: what it is.
        layer: the name of the module.
        estimator: the name of the estimator; empty for what is counted.
        unit: where given, the name among the diagnostics that says the unit.

    Example:
        >>> tag("ib", "I_TY", "out"), tag("ib", "I_TY", "out", estimator="probe")
        ('ib/I_TY/out', 'ib/probe/I_TY/out')
        >>> tag("ib", "I_TY_lower", "out", unit="bits"), tag("ib", "saturation", "out")
        ('ib_diagnostics/bits/I_TY_lower/out', 'ib_diagnostics/saturation/out')
    """
    group = diagnostics(prefix) if unit or is_diagnostic(quantity, estimator) else prefix
    return "/".join(part for part in (group, unit, estimator, quantity, layer) if part)


def parse_tag(name: str, prefix: str = "ib") -> Tag | None:
    """What a name says, as :func:`tag` took it, whatever slashes the layer's name has; None for any other name.

    Args:
        name: what a value was logged under.
        prefix: the callback's.

    Example:
        >>> parse_tag("ib/probe/I_TY/blocks/0.out")
        Tag(quantity='I_TY', layer='blocks/0.out', estimator='probe', unit='')
        >>> parse_tag("train_loss")
    """
    group = next((group for group in (prefix, diagnostics(prefix)) if name.startswith(f"{group}/")), None)
    if group is None:
        return None
    parts = name.removeprefix(f"{group}/").split("/")
    unit = parts.pop(0) if group != prefix and parts[0] in UNITS else ""
    estimator = "" if not parts or parts[0] in _COUNTED else parts.pop(0)
    if len(parts) < 2:
        return None
    quantity, layer = parts[0], "/".join(parts[1:])
    found = Tag(quantity, layer, estimator, unit)
    return found if name == tag(prefix, quantity, layer, estimator=estimator, unit=unit) else None
