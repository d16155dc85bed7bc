import pytest

import lightning_ib.callbacks.information_plane as callback_module
from lightning_ib.report import loggers
from lightning_ib.report.reporter import Reporter


@pytest.fixture
def pictures():
    """Asked for by tests that look at them."""


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing takes most of the time of a small run."""
    monkeypatch.setattr(Reporter, "_picture", lambda *_: False)


def blank(figure):
    """A picture as large as the figure, without what is in it."""
    from PIL import Image

    return Image.new("RGB", figure.canvas.get_width_height(), "white")


def blank_drawing():
    """Figures are made and saved, and their PNG files are blank: turning one into pixels takes most of the time.

    For modules, or tests, that ask whether there is a picture. Pixels are looked at in ``test_loggers.py``,
    ``test_estimators_logging.py`` and ``tests/unit/plot``.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loggers, "rendered", blank)
        yield


blank_pictures = pytest.fixture(blank_drawing, scope="module")
blank_pictures_here = pytest.fixture(blank_drawing)


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
