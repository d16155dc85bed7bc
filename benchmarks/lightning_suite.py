"""Lightning's own tests with the default callback in every Trainer: a plugin for pytest.

The tests are Lightning's and fetched by whoever runs them::

    git clone --depth 1 https://github.com/Lightning-AI/pytorch-lightning
    cd pytorch-lightning/tests
    PYTHONPATH=PROJECT/benchmarks python -m pytest -p lightning_suite --continue-on-collection-errors tests_pytorch

with ``PROJECT`` the folder of this project, and ``lightning`` in the release of the tests. Many tests assert which
callbacks, metrics or files there are, and fail beside any callback. The summary at the end counts the Trainers that
got the callback, and lists the tests that an error of it ended.
"""

from __future__ import annotations

import functools
from typing import Any

import lightning.pytorch as pl
import pytest

from lightning_ib import InformationPlaneCallback

counted = {"trainers": 0, "fits": 0, "measured": 0}
ended: dict[str, str] = {}
own: list[InformationPlaneCallback] = []


def _with_the_callback(init: Any) -> Any:
    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        callback = InformationPlaneCallback()
        self.callbacks.insert(0, callback)
        own.append(callback)
        counted["trainers"] += 1

    return wrapped


pl.Trainer.__init__ = _with_the_callback(pl.Trainer.__init__)  # type: ignore[method-assign]


def pytest_configure(config: Any) -> None:
    """Know the marker of a plugin that the tests use."""
    config.addinivalue_line("markers", "flaky: retried by pytest-rerunfailures, where that is installed")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Any:
    """Note a test that an error of the callback ended."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        counted["fits"] += sum(1 for callback in own if callback.plane.quantizers)
        counted["measured"] += sum(1 for callback in own if callback.history)
        own.clear()
    if report.failed and call.excinfo is not None:
        through = [entry for entry in call.excinfo.traceback if "lightning_ib" in str(entry.path)]
        if through:
            ended[item.nodeid] = f"{call.excinfo.exconly()[:300]} ({through[-1].path.name}:{through[-1].lineno})"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the summary."""
    terminalreporter.section("the default callback")
    terminalreporter.write_line(
        f"{counted['trainers']} Trainers had it, {counted['fits']} runs hooked layers, {counted['measured']} measured."
    )
    terminalreporter.write_line(f"{len(ended)} tests were ended by an error that passed through it:")
    for test, error in ended.items():
        terminalreporter.write_line(f"  {test}: {error}")
