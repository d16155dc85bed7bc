"""Layers that are known functions of known inputs: the figures that follow by hand."""

import math

import pytest

from lightning_ib import FixedBins, Quantizer, measure
from tests.helpers.nets import known_net
from tests.helpers.planes import SIXTEEN, WHOLE, batches

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("unit", "one"), [("bits", 1.0), ("nats", math.log(2))])
def test_layers_that_are_known_functions_give_known_figures(unit, one):
    model = known_net(
        same=lambda x: x,
        parity=lambda x: x % 2,
        upper=lambda x: x // 8,
        constant=lambda x: 0 * x,
        pair=lambda x: x // 4,
    )
    layers = dict.fromkeys(["same", "parity", "upper", "constant", "pair"], WHOLE)
    points = measure(model, batches(SIXTEEN.unsqueeze(1), SIXTEEN % 4, 10), layers, unit=unit)
    #                       H(T)  I(T;Y)  H(Y|T)  I(X;T|Y)  symbols
    known = {
        "same": (4, 2, 0, 2, 16),
        "parity": (1, 1, 1, 0, 2),
        "upper": (1, 0, 2, 1, 2),
        "constant": (0, 0, 2, 0, 1),
        "pair": (2, 0, 2, 2, 4),
    }
    assert [point.layer for point in points] == list(known)
    for point in points:
        h_t, i_ty, h_y_given_t, i_xt_given_y, n_codes = known[point.layer]
        assert point == point._replace(n_samples=64, n_codes=n_codes, unit=unit, epoch=0, step=0)
        figures = (point.h_t, point.i_xt, point.i_ty, point.h_y_given_t, point.i_xt_given_y, point.h_x, point.h_y)
        expected = (h_t, h_t, i_ty, h_y_given_t, i_xt_given_y, 6, 2)
        assert figures == pytest.approx([value * one for value in expected], abs=1e-12)
        assert point.saturation == pytest.approx(h_t / 6, abs=1e-12)


def test_a_discretized_input_gives_known_figures():
    # X discretized to its lowest bit. T = the two lowest bits, of which X knows one; Y is the second.
    x = SIXTEEN.unsqueeze(1)
    model = known_net(two=lambda x: x % 4)
    (point,) = measure(
        model, batches(x, (SIXTEEN // 2) % 2, 7), {"two": WHOLE}, input=Quantizer(lambda x: x % 2, FixedBins([0.5]))
    )
    figures = (point.h_x, point.h_t, point.i_xt, point.i_ty, point.h_y, point.h_y_given_t, point.i_xt_given_y)
    assert figures == pytest.approx((1, 2, 1, 1, 1, 0, 1), abs=1e-12)


def test_a_discretized_input_may_know_less_than_the_layer_tells_of_the_target():
    x = SIXTEEN.unsqueeze(1)
    coarse = Quantizer(lambda x: 0 * x, FixedBins([0.5]))
    (point,) = measure(known_net(same=lambda x: x), batches(x, SIXTEEN % 4, 9), {"same": WHOLE}, input=coarse)
    assert (point.h_x, point.i_xt, point.i_ty, point.i_xt_given_y) == (0.0, 0.0, 2.0, 0.0)
