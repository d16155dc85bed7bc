"""Aim, LitLogger and trackio with their own libraries, offline: what they hold is read back, and is the history."""

import signal
import sys
from pathlib import Path

import pytest

from lightning_ib import FixedBins, InformationPlaneCallback, Quantizer
from lightning_ib.records import History
from lightning_ib.report.loggers import log_page, scalars
from lightning_ib.warn_once import WarnOnce
from tests.helpers.loggers import assert_is_the_page, pixels
from tests.helpers.loggers_beside import TrackioLogger, beside, platform
from tests.helpers.tiny import fit, pl

FIXED = {"hidden": Quantizer(bins=FixedBins([-0.5, 0.5])), "out": Quantizer(bins=FixedBins([0.0]))}
TAG = "ib/information_plane"
STEPS = [0, 5]  # of the measurement before training, and of that after the epoch


def fit_once(tmp_path, logger):
    callback = InformationPlaneCallback(FIXED, estimators=())
    fit(tmp_path, callback, logger=logger, max_epochs=1)
    return callback


def assert_holds(callback, values, pictures, page):
    """(name, step) → value for every scalar, the size of the picture at every step, and the page."""
    expected = {
        (name, step): value
        for step, epoch in zip(STEPS, range(2), strict=True)
        for name, value in scalars(History.of(p for p in callback.history if p.epoch == epoch), "ib").items()
    }
    assert {key: values[key] for key in expected} == pytest.approx(expected, rel=1e-6)
    assert [step for step, _ in pictures] == STEPS
    assert (pixels(pictures[-1][1]) == pixels(callback.figure_path)).all()
    assert_is_the_page(page, callback)


@pytest.mark.filterwarnings("default")  # the libraries' own
def test_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = beside(monkeypatch, "trackio")
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    callback = fit_once(tmp_path, TrackioLogger(trackio))
    rows = SQLiteStorage.get_logs("digits", "first")
    values = {(name, row["step"]): row[name] for row in rows for name in row}
    pictures = [(row["step"], utils.MEDIA_DIR / row[TAG]["file_path"]) for row in rows if TAG in row]
    ((step, page),) = [(row["step"], row["ib/page"]) for row in rows if "ib/page" in row]
    assert (step, page["_type"]) == (STEPS[-1], "trackio.html")
    assert_holds(callback, values, pictures, (utils.MEDIA_DIR / page["file_path"]).read_text())


@pytest.mark.slow  # its library imports for seconds
@pytest.mark.filterwarnings("default")
def test_litlogger(tmp_path, monkeypatch):
    made = platform(monkeypatch, tmp_path / "platform")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        logger = pl.loggers.LitLogger(tmp_path / "logs", name="digits", save_logs=False)
        callback = fit_once(tmp_path, logger)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    experiment = logger.experiment
    pictures = [(media.step, tmp_path / "platform" / "media" / str(k + 1)) for k, media in enumerate(made.media)]
    assert {(media.name, media.mime_type) for media in made.media} == {(TAG, "image/png")}
    assert made.artifacts == ["ib/page.html"]
    page = experiment["ib/page.html"].save(str(tmp_path / "back.html"))
    assert_holds(
        callback, {(name, step): value for step, name, value in made.metrics}, pictures, Path(page).read_text()
    )


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Aim has no wheels for Python 3.13")
@pytest.mark.filterwarnings("default")
def test_aim(tmp_path, monkeypatch):
    aim = beside(monkeypatch, "aim")
    from aim.pytorch_lightning import AimLogger
    from aim.storage.context import Context

    where = {"repo": str(tmp_path / "aim"), "system_tracking_interval": None, "capture_terminal_logs": False}
    logger = AimLogger(**where, log_system_params=False)
    logger.experiment.set_artifacts_uri(f"file://{tmp_path}/artifacts")
    key = logger.experiment.hash
    callback = fit_once(tmp_path, logger)
    run = aim.Run(key, **where)
    values = {(metric.name, step): value for metric in run.metrics() for step, value in tracked(metric)}
    pictures = []
    for step, image in tracked(run.get_image_sequence(TAG, Context({}))):
        image.to_pil_image().save(tmp_path / f"{step}.png")
        pictures.append((step, tmp_path / f"{step}.png"))
    page = Path(run.artifacts["ib/page.html"].download(str(tmp_path / "back"))).read_text()
    assert_holds(callback, values, pictures, page)
    run.close()

    without_a_place = AimLogger(**where, log_system_params=False)
    log_page([without_a_place], "ib/page", lambda: pytest.fail("no one takes it"), 0, WarnOnce())
    assert without_a_place.experiment.artifacts == {}
    without_a_place.finalize()


def tracked(sequence):
    """(step, value) of a sequence of Aim."""
    steps, (values,) = sequence.data.view(["val"]).items_list()
    return list(zip(steps, values, strict=True))
