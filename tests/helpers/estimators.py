"""A plane with estimators, and what they say of a layer."""

import functools
import math

import torch
from torch import nn

from lightning_ib import InformationPlane, Quantizer, UniformBins
from lightning_ib.functional import (
    kernel_width_of,
    mutual_information_bounds_kde,
    mutual_information_gaussian_copula,
    mutual_information_gaussian_copula_labels,
    mutual_information_infonce,
    mutual_information_knn,
    mutual_information_ksg,
    mutual_information_mixed,
    mutual_information_projected,
    mutual_information_quantized,
    mutual_information_renyi,
    mutual_information_renyi_labels,
    mutual_information_smile,
    noise_variance_of,
    probe_information,
    soft_information,
)
from lightning_ib.measurement.estimation import rows_for
from tests.helpers.nets import Function

COARSE = Quantizer(bins=UniformBins(3))
QUICK = ["kde", "ksg", "knn", "mixed", "projected", "copula", "renyi", "probe", "quantized8", "soft"]

N, M = 150, 64


def net(**functions):
    """Layers side by side, each a function of the input."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            for name, function in functions.items():
                self.add_module(name, Function(function))

        def forward(self, x):
            for layer in self.children():
                layer(x)

    return Net()


def plane_of(model, estimators, **options):
    return InformationPlane({name: COARSE for name, _ in model.named_children()}, estimators=estimators, **options)


def estimated(plane, model, x, y, *, batch=N, epoch=0):
    """One measurement, from the start: (layer, estimator, figure) → value."""
    plane.reset()
    with plane.attach(model):
        for k in range(0, len(x), batch):
            model(x[k : k + batch])
            plane.update(x[k : k + batch], None if y is None else y[k : k + batch])
    return plane.estimate(epoch=epoch, step=10 * epoch)


def shown(plane, estimator=None, layer="act"):
    """The rows that an estimator is shown of a layer."""
    return rows_for(plane.estimation.estimators[0] if estimator is None else estimator, layer, plane.drawn())


def values(estimates):
    return {(one.layer, one.source, one.quantity): one.value for one in estimates}


def same(a, b):
    return a.keys() == b.keys() and all(a[k] == b[k] or (math.isnan(a[k]) and math.isnan(b[k])) for k in a)


TANH = net(act=torch.tanh)


def kde(rows, y=None, variance=None, unit="bits"):
    variance = noise_variance_of(rows.t) if variance is None else variance
    x = mutual_information_bounds_kde(rows.t, noise_variance=variance, unit=unit)
    found = {"I_XT": x.upper, "I_XT_lower": x.lower}
    if rows.y is not None and not rows.y.is_floating_point():
        about = mutual_information_bounds_kde(rows.t, rows.y, noise_variance=variance, unit=unit)
        found |= {"I_TY": about.upper, "I_TY_lower": about.lower}
    return found | {"noise_variance": variance}


def ksg(rows, unit="bits"):
    found = {"I_XT": mutual_information_ksg(rows.t, rows.x, unit=unit)}
    if rows.y is not None and rows.y.is_floating_point():
        found["I_TY"] = mutual_information_ksg(rows.t, rows.y, unit=unit)
    return found


def mixed(rows, unit="bits"):
    y = rows.y if rows.y.is_floating_point() else 1e6 * rows.y.double()  # classes farther apart than any rows
    return {"I_TY": mutual_information_mixed(rows.t, y, unit=unit)}


def renyi(rows, unit="bits"):
    found = {"I_XT": mutual_information_renyi(rows.t, rows.x, unit=unit), "kernel_width": kernel_width_of(rows.t)}
    if rows.y is None:
        return found
    of_labels = not rows.y.is_floating_point()
    function = mutual_information_renyi_labels if of_labels else mutual_information_renyi
    return found | {"I_TY": function(rows.t, rows.y, unit=unit)}


def probe(rows, unit="bits", kind="linear"):
    decoded = probe_information(rows.t, rows.y, probe=kind, folds=4, unit=unit)
    return {"I_TY": decoded.information, "accuracy": decoded.accuracy}


def quantized(rows, unit="bits"):
    found = {"I_XT": mutual_information_quantized(rows.t, unit=unit)}
    if rows.y is not None and not rows.y.is_floating_point():
        found["I_TY"] = mutual_information_quantized(rows.t, rows.y, unit=unit)
    return found


def soft(rows, unit="bits"):
    about = rows.y is not None and not rows.y.is_floating_point()
    found = soft_information(rows.t, rows.y if about else None, unit=unit)
    values = {"H_T": found.h_t, "I_XT": found.i_xt}
    if about:
        values |= {
            "I_TY": found.i_ty,
            "I_TY_floor": found.i_ty_floor,
            "I_TY_above_floor": found.i_ty - found.i_ty_floor,
        }
    return values


def one_hot(y):
    return y if y.is_floating_point() else torch.nn.functional.one_hot(y).double()


def copula(rows, unit="bits"):
    real = rows.y.is_floating_point()
    function = mutual_information_gaussian_copula if real else mutual_information_gaussian_copula_labels
    return {"I_TY": function(rows.t, rows.y, unit=unit)}


PURE = {
    "kde": kde,
    "ksg": ksg,
    "knn": lambda rows, unit="bits": {"I_TY": mutual_information_knn(rows.t, rows.y, unit=unit)},
    "mixed": mixed,
    "projected": lambda rows, unit="bits": {"I_TY": mutual_information_projected(rows.t, rows.y, unit=unit)},
    "copula": copula,
    "renyi": renyi,
    "probe": probe,
    "mlp_probe": functools.partial(probe, kind="mlp"),
    "infonce": lambda rows, unit="bits": {"I_TY": mutual_information_infonce(rows.t, one_hot(rows.y), unit=unit)},
    "smile": lambda rows, unit="bits": {"I_TY": mutual_information_smile(rows.t, one_hot(rows.y), unit=unit)},
    "quantized8": quantized,
    "soft": soft,
}


def told(caught):
    return [str(one.message) for one in caught if "could not be estimated" in str(one.message)]


LOUD = net(act=lambda x: 2 * torch.tanh(x))
