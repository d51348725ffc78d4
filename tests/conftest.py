"""What all tests share."""

import os
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch

if not torch.cuda.is_available():  # before anything imports Triton, as torch.compile does
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The first backward of a process counts the devices. If a trace has made up a GPU by then, autograd
# starts threads for it, and no process that is forked afterwards (processes.py) can go backward.
torch.ones(1, requires_grad=True).backward()

# Windows cannot fork, and the core is also tested without Detectron2.
if not hasattr(os, "fork") or find_spec("detectron2") is None:
    collect_ignore = ["checkpoints/test_durable.py", "core/test_training_memory.py"]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The tensors of these tests are so small that a second thread only costs time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


FIGURES: list[str] = []


@pytest.fixture
def record_figures() -> Callable[[str, str], None]:
    """Called with a row of docs/RELIABILITY.md and what was seen; printed at the end."""
    return lambda row, seen: FIGURES.append(f"{row}: {seen}")


def pytest_terminal_summary(terminalreporter) -> None:
    if FIGURES:
        terminalreporter.section("figures for docs/RELIABILITY.md")
        for line in FIGURES:
            terminalreporter.line(line)
