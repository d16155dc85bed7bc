import pytest

import lightning_ib.report.reporter
from tests.helpers.resume import PICTURES


@pytest.fixture
def pictures():
    """Asked for by tests that look at them."""


@pytest.fixture
def few_pictures(request, monkeypatch):
    """Drawing takes most of the time of a small run."""
    if "pictures" not in request.fixturenames:
        for name in (*PICTURES, "plot_estimates"):
            monkeypatch.setattr(lightning_ib.report.reporter, name, lambda *_: None)
