import pytest

from lightning_ib.report.reporter import Reporter


@pytest.fixture
def pictures():
    """Asked for by tests that look at them."""


@pytest.fixture
def few_pictures(request, monkeypatch):
    """Drawing takes most of the time of a small run."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(Reporter, "_picture", lambda *_: False)
