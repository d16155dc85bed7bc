import functools
import gc
import importlib.metadata
import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# With every Trainer, Lightning searches all that is installed for callbacks: a fifth of what one without ours takes.
importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)

# Nothing hangs on how busy the machine is.
settings.register_profile("suite", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

# What they assert is shown as in a test.
pytest.register_assert_rewrite("tests.helpers")

from tests.helpers.mnist import read_mnist  # noqa: E402
from tests.helpers.programs import Programs  # noqa: E402

DATA_VARIABLE = "LIGHTNING_IB_DATA"
THREADS_VARIABLE = "LIGHTNING_IB_TEST_THREADS"

# Small tensors gain nothing from more, and two test processes with two threads each stand in each other's way. With
# more, sums are added up in another order: no test may hang on that.
torch.set_num_threads(int(os.environ.get(THREADS_VARIABLE, "1")))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Deal whole files to workers: what the tests of a file share, such as a run, is made once. The long ones first."""
    from xdist.scheduler import LoadFileScheduling

    class LongestFirst(LoadFileScheduling):
        def schedule(self):
            config.option.loadscopereorder = False
            super().schedule()

    return LongestFirst(config, log)


def pytest_collection_finish():
    """What is imported and collected stays: leave it out of every later search for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    """Every test draws the same weights and data, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread():
    """For tiny tensors: where the cores are shared, threads would spend the time waiting for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Runs Python programs in processes of their own, which start in a fifth of the time."""
    running = Programs(tmp_path_factory.mktemp("programs"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def data_dir():
    """Where MNIST and the thesis' networks lie."""
    if not os.environ.get(DATA_VARIABLE):
        pytest.skip(f"needs real data: set {DATA_VARIABLE} to the folder that holds MNIST/raw and thesis/")
    return Path(os.environ[DATA_VARIABLE])


@pytest.fixture(scope="session")
def mnist_train(data_dir):
    """The 60 000 training images, (N, 1, 28, 28) in [0, 1], and their labels."""
    return read_mnist(data_dir / "MNIST" / "raw", "train")


@pytest.fixture(scope="session")
def mnist_test(data_dir):
    """The 10 000 test images and their labels."""
    return read_mnist(data_dir / "MNIST" / "raw", "t10k")
