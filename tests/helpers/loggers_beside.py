"""Aim, LitLogger and trackio, in a folder of their own.

Their requirements pin packages that the suite has in later versions, so they are installed without them: ``loggers`` in
the environment, that only the tests of these loggers put on their path.
"""

import os
import shutil
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.helpers.tiny import pl


def beside(monkeypatch, name):
    """The library of a logger; a test that asks for it is skipped where it is not there."""
    folder = str(Path(sys.prefix) / "loggers")
    monkeypatch.setattr(sys, "path", [*sys.path, folder])
    monkeypatch.setenv("PYTHONPATH", folder, prepend=os.pathsep)  # Aim starts a Python that makes its database
    return pytest.importorskip(name, reason=f"needs {name}: make test installs it")


class TrackioLogger(pl.loggers.logger.Logger):
    """As users write one: neither trackio nor Lightning has a logger of trackio."""

    name, version = "digits", "first"

    def __init__(self, trackio):
        super().__init__()
        self.experiment = trackio.init(self.name, name=self.version, auto_log_gpu=False, auto_log_cpu=False)

    def log_metrics(self, metrics, step=None):
        self.experiment.log(dict(metrics), step=step)

    def log_hyperparams(self, params, *args, **kwargs):
        pass

    def finalize(self, status):
        self.experiment.finish()


class Platform:
    """What LitLogger asks of lightning.ai, kept in a folder: each method is called as that of the REST client."""

    id, name, default_cloud_account = "teamspace", "teamspace", None
    owner = SimpleNamespace(name="owner")

    def __init__(self, folder):
        self.folder, self.metrics, self.media, self.artifacts = folder, [], [], []
        self._teamspace_api = self

    def __getattr__(self, name):
        if name.startswith("lit_logger_service"):
            return lambda **asked: SimpleNamespace(summaries_per_name={}, jobs=[], artifacts=[])
        raise AttributeError(name)

    def lit_logger_service_get_metrics_stream(self, **asked):
        return None

    def lit_logger_service_create_metrics_stream(self, body, **asked):
        return SimpleNamespace(id="stream", name=body.name, cluster_id="cluster", tags=[], artifacts=[])

    def lit_logger_service_append_logger_metrics(self, body, **asked):
        self.metrics += [
            (value.step, metrics.name, value.value) for metrics in body.metrics for value in metrics.values
        ]

    def lit_logger_service_create_lit_logger_media(self, body, **asked):
        self.media.append(body)
        media = SimpleNamespace(id=str(len(self.media)), cluster_id="cluster", storage_path=f"media/{len(self.media)}")
        return SimpleNamespace(media=media, already_exists=False)

    def lit_logger_service_create_logger_artifact(self, body, **asked):
        self.artifacts.append(body.path)

    def upload_file(self, file_path, remote_path, **asked):
        path = self.folder / remote_path
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file_path, path)

    def download_file(self, remote_path, file_path, **asked):
        shutil.copy(self.folder / remote_path, file_path)


def platform(monkeypatch, folder):
    """lightning.ai, as the library of LitLogger sees it."""
    beside(monkeypatch, "litlogger")
    made = Platform(folder)
    experiment = import_module("litlogger.experiment")  # an attribute of that name is the run at work
    monkeypatch.setattr(experiment, "_resolve_teamspace", lambda asked: made)
    monkeypatch.setattr(experiment, "get_accessible_url", lambda **asked: "https://lightning.ai/experiment")
    monkeypatch.setattr(experiment.AuthApi, "__init__", lambda self: None)
    monkeypatch.setattr(experiment.AuthApi, "authenticate", lambda self: None)
    for name in ("artifacts_api", "metrics_api"):
        monkeypatch.setattr(import_module(f"litlogger.api.{name}"), "LitRestClient", lambda **asked: made)
    return made
