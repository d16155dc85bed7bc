"""Which estimators are asked for: by name, as objects, or wrongly."""

import math
import re

import pytest

from lightning_ib import InformationPlane
from lightning_ib.estimators.base import Estimator
from lightning_ib.estimators.kernels import KDE, Renyi
from lightning_ib.estimators.neighbors import KSG
from lightning_ib.estimators.quantized import Quantized
from lightning_ib.estimators.registry import BY_NAME, checked_estimators
from lightning_ib.estimators.variational import Probe
from tests.helpers.estimators import TANH, estimated, plane_of, values


@pytest.mark.parametrize("name", BY_NAME)
def test_a_name_is_an_estimator_that_logs_under_it(name):
    (estimator,) = checked_estimators([name])
    assert estimator.name == name
    assert isinstance(estimator, Estimator)


def test_names_and_estimators_can_be_mixed():
    own = KDE(noise_variance=0.1)
    assert checked_estimators(("probe", own))[1] is own
    assert checked_estimators([]) == []


@pytest.mark.parametrize(
    ("asked", "kind", "told"),
    [
        (["kdee"], ValueError, "there is no estimator 'kdee': did you mean 'kde'?"),
        (["mlp-probe"], ValueError, "there is no estimator 'mlp-probe': did you mean 'mlp_probe'?"),
        (["quantised8"], ValueError, "there is no estimator 'quantised8': did you mean 'quantized8'?"),
        (["zzz"], ValueError, "did you mean 'kde' or 'ksg' or 'knn' or .* or 'quantized8'?"),
        ("kde", TypeError, "estimators must be a list, got 'kde'. Did you mean ['kde']?"),
        (KDE(), TypeError, "estimators must be a list, got KDE(). Did you mean [KDE()]?"),
        (["kde", "kde"], ValueError, "two estimators would log as 'kde': give one of them another .name."),
        ([KDE(0.1), "kde"], ValueError, "two estimators would log as 'kde': give one of them another .name."),
        ([3], TypeError, "an estimator must be a name such as 'kde' or an Estimator such as KDE(), got 3."),
        ([None], TypeError, "an estimator must be a name such as 'kde' or an Estimator such as KDE(), got None."),
        ([KDE], TypeError, "an Estimator such as KDE(), got <class 'lightning_ib.estimators.kernels.KDE'>."),
    ],
)
def test_a_wrong_choice_is_refused(asked, kind, told):
    pattern = told if ".*" in told else re.escape(told)
    for ask in (checked_estimators, lambda asked: InformationPlane(["act"], estimators=asked)):
        with pytest.raises(kind, match=pattern):
            ask(asked)


def test_an_estimator_without_a_name_is_refused():
    class Nameless(Estimator):
        def estimate(self, rows, calibration, unit):
            return {"I_TY": 1.0}

    with pytest.raises((TypeError, ValueError), match="name"):
        checked_estimators([Nameless()])


def test_another_name_lets_one_estimator_work_twice(data):
    finer = KDE(noise_variance=0.01)
    finer.name = "kde_fine"
    found = values(estimated(plane_of(TANH, ["kde", finer]), TANH, *data))
    assert found["act", "kde_fine", "I_XT"] > found["act", "kde", "I_XT"]


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (
            lambda: KDE(noise_variance=0),
            ValueError,
            "KDE: noise_variance must be a positive finite number, got 0: give None",
        ),
        (
            lambda: KDE(noise_variance=math.nan),
            ValueError,
            "KDE: noise_variance must be a positive finite number, got nan: give None",
        ),
        (lambda: Probe("deep"), ValueError, "Probe: probe must be 'linear' or 'mlp', got 'deep'"),
        (lambda: Renyi(pool=3), TypeError, r"Renyi: pool must be a callable on rows \(M, …\) or None, got 3"),
    ],
)
def test_a_wrong_option_is_refused_at_once(make, kind, told):
    with pytest.raises(kind, match=told):
        make()


@pytest.mark.parametrize("n", [1, 0, -5, 2.0, "many", None, True])
def test_max_samples_must_be_a_number_of_rows(n):
    told = re.escape(f"max_samples must be an integer of at least 2, got {n!r}: ")
    with pytest.raises((TypeError, ValueError), match=told):
        InformationPlane(["act"], max_samples=n)


def test_an_estimator_shows_its_options():
    assert repr(KSG(k=5)) == "KSG(k=5, algorithm=1)"
    assert repr(Probe(folds=5)) == "Probe(probe='linear', folds=5)"
    assert repr(Quantized(None)) == "Quantized(per='layer')"
    assert repr(KDE(frozen=True, max_samples=500)) == "KDE(max_samples=500, frozen=True)"
