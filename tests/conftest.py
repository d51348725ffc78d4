"""What all tests share."""

import os

import pytest
import torch

if not torch.cuda.is_available():  # before anything imports Triton, as torch.compile does
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The tensors of these tests are so small that a second thread only costs time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
