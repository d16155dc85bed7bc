"""Data that estimators are shown."""

import pytest
import torch

from tests.helpers.estimators import N


@pytest.fixture
def data():
    """Three classes a little apart, in four coordinates."""
    y = torch.arange(N) % 3
    return torch.randn(N, 4) + 1.5 * torch.eye(3, 4)[y], y
