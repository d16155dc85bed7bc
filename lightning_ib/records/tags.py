"""The tags that values are logged under, and the parser of tags. Needs the standard library alone.

On the first page, ``<prefix>/…``, stand I(X;T), I(T;Y) and H(T) of each layer and the values of the estimators. All
else, and all a chart shows under a unit, stands in ``<prefix>_diagnostics/…``, where a value with a unit has it in its
name: TensorBoard selects the values of a chart by name alone, in all runs of a folder, although units may differ.

Where several targets are measured in one pass, a quantity about one of them has its name behind an ``@``:
``<prefix>/I_TY@coarse/…``.
"""

from __future__ import annotations

from typing import NamedTuple

from lightning_ib.records.record import COMPANIONS, COUNTED, GRADIENT, GRADIENT_QUANTITIES, VARIATIONAL

QUANTITIES = ("I_XT", "I_TY", "H_T")
"""The counted quantities of the first page."""

UNITS = ("bits", "nats")

PLUGIN = "information_plane"
"""The name of the page in TensorBoard, under which measurements are logged for it."""

BOUNDS = ("I_TY_bound", "I_TY_gap", "I_XT_finite_sample", "I_TY_finite_sample", "error_heuristic")
"""The counted quantities that a bound adds, where one was asked for."""

SHARES = ("saturation", "singleton_fraction", "clipped_fraction", "accuracy")
"""The counted quantities that are dimensionless."""

_GRADIENTS_OF_THE_FIRST_PAGE = set(GRADIENT_QUANTITIES) - {"grad_snr_unbiased", "grad_snr_floor"}

_COUNTED = {
    *QUANTITIES,
    *(f"{quantity}_{end}" for quantity in QUANTITIES for end in ("lower", "upper")),
    *("I_TY_permuted", "I_TY_fano", "IB"),
    *BOUNDS,
    *SHARES,
    *GRADIENT_QUANTITIES,
}
RESERVED = _COUNTED.union(UNITS, COUNTED, COMPANIONS, [GRADIENT, VARIATIONAL])
"""Names that estimators must avoid, since a tag would have two meanings."""


_PARAMETERS = (
    *("noise_variance", "kernel_width"),
    *("alpha_r2", "alpha_first", "alpha_last", "n_classes", "smallest_class"),
)


class Tag(NamedTuple):
    """The parts of a name.

    Attributes:
        quantity: such as ``"I_TY"`` or ``"saturation"``.
        layer: the name of the module.
        source: the name of the estimator; empty for counted values and for those of gradients.
        unit: ``"bits"`` or ``"nats"``, where the name holds it.
        target: the name of the target, where several are measured in one pass and the value is about one.
    """

    quantity: str
    layer: str
    source: str = ""
    unit: str = ""
    target: str = ""


def diagnostics(prefix: str) -> str:
    """The first part of the names off the first page."""
    return f"{prefix}_diagnostics"


def measurement_tag(prefix: str) -> str:
    """The name under which whole measurements are logged for the page in TensorBoard."""
    return f"{prefix}/measurement"


def is_diagnostic(quantity: str, source: str = "") -> bool:
    """Whether a value is off the first page: a bound, a baseline, a parameter, or a counted fraction."""
    if not source or source == GRADIENT:
        return quantity not in (*QUANTITIES, *_GRADIENTS_OF_THE_FIRST_PAGE)
    return quantity.endswith(("_lower", "_upper", "_floor", "_plug_in")) or quantity in _PARAMETERS


def format_tag(prefix: str, quantity: str, layer: str, *, source: str = "", unit: str = "", target: str = "") -> str:
    """The name of a value.

    Args:
        prefix: the callback's.
        quantity: such as ``"I_TY"``.
        layer: the name of the module.
        source: the name of the estimator; empty for counted values.
        unit: if set, the name is the one among the diagnostics, with the unit in it.
        target: the name of the target, where several are measured in one pass and the value is about one.

    Example:
        >>> format_tag("ib", "I_TY", "out"), format_tag("ib", "I_TY", "out", source="probe")
        ('ib/I_TY/out', 'ib/probe/I_TY/out')
        >>> format_tag("ib", "I_TY_lower", "out", unit="bits"), format_tag("ib", "saturation", "out")
        ('ib_diagnostics/bits/I_TY_lower/out', 'ib_diagnostics/saturation/out')
        >>> format_tag("ib", "I_TY", "out", source="probe", target="coarse")
        'ib/probe/I_TY@coarse/out'
    """
    source = "" if source in COUNTED or source == GRADIENT else source
    group = diagnostics(prefix) if unit or is_diagnostic(quantity, source) else prefix
    return "/".join(part for part in (group, unit, source, at_target(quantity, target), layer) if part)


def at_target(name: str, target: str) -> str:
    """A quantity, or a picture, of one target: its name, and behind an ``@`` that of the target, if it has one."""
    return f"{name}@{target}" if target else name


def parse_tag(name: str, prefix: str = "ib") -> Tag | None:
    """The inverse of :func:`format_tag`, also for layer names with slashes; None for any other name.

    Args:
        name: the name of a logged value.
        prefix: the callback's.

    Example:
        >>> parse_tag("ib/probe/I_TY/blocks/0.out")
        Tag(quantity='I_TY', layer='blocks/0.out', source='probe', unit='', target='')
        >>> parse_tag("ib/I_TY@coarse/out").target
        'coarse'
        >>> parse_tag("train_loss")
    """
    group = next((group for group in (prefix, diagnostics(prefix)) if name.startswith(f"{group}/")), None)
    if group is None:
        return None
    parts = name.removeprefix(f"{group}/").split("/")
    unit = parts.pop(0) if group != prefix and parts[0] in UNITS else ""
    source = "" if not parts or parts[0].partition("@")[0] in _COUNTED else parts.pop(0)
    if len(parts) < 2:
        return None
    quantity, _, target = parts[0].partition("@")
    found = Tag(quantity, "/".join(parts[1:]), source, unit, target)
    return found if name == format_tag(prefix, **found._asdict()) else None
