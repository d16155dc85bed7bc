import pytest

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
