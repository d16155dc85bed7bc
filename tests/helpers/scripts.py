"""Scripts of examples/ as modules, and runs of them that leave no trace."""

import importlib.util
import random
import sys
from contextlib import contextmanager

import numpy as np
import torch

from lightning_ib.report.reporter import Reporter


@contextmanager
def loaded(script):
    """A script as a module; the modules beside it are found while it is loaded."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its named tuples look up their annotations there
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    yield module
    del sys.modules[spec.name]


@contextmanager
def untouched(monkeypatch):
    """Random states, threads and Lightning's variables are put back; the callback draws no pictures."""
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(variable, "0")
    monkeypatch.setattr(Reporter, "_picture", lambda *_: False)  # they take most of the time
    states = torch.get_rng_state(), np.random.get_state(), random.getstate(), torch.get_num_threads()
    yield
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    torch.set_num_threads(states[3])
