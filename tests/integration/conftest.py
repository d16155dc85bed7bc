import pytest

import lightning_ib.callbacks.information_plane as callback_module
from lightning_ib.report.reporter import Reporter


@pytest.fixture
def pictures():
    """Asked for by tests that look at them."""


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing takes most of the time of a small run."""
    monkeypatch.setattr(Reporter, "_picture", lambda *_: False)


@pytest.fixture
def few_pictures(request):
    """No pictures but where a test asks for them."""
    if "pictures" not in request.fixturenames:
        request.getfixturevalue("no_pictures")


@pytest.fixture
def probes():
    """Asked for by tests that look at the probes of a callback that names no estimators."""


@pytest.fixture
def few_probes(request, monkeypatch):
    """No probes by default but where a test asks for them: they take a quarter of the time of a small run."""
    if "probes" not in request.fixturenames:
        monkeypatch.setattr(callback_module, "default_estimators", list)
