"""The package on Windows and macOS, as far as Linux can show it."""

from __future__ import annotations

import ast
import multiprocessing
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_training

from swinv2_backbone.d2.data.loading import workers
from swinv2_backbone.d2.data.loading.from_config import train_loader_from_config
from swinv2_backbone.d2.data.loading.loader import DrawnImages
from swinv2_backbone.d2.engine.launch import _ask_to_stop

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(
    file for room in ("swinv2_backbone", "tools") for file in (ROOT / room).rglob("*.py")
)
ABSENT = ("resource", "fcntl", "pwd", "grp", "termios", "triton")  # on Windows


def without_encoding(source: str) -> Iterator[int]:
    """Yield the lines that open a text file in the encoding of the system, cp1252 on Windows."""
    called = any(f"{name}(" in source for name in ("open", "read_text", "write_text"))
    for node in ast.walk(ast.parse(source)) if called else ():
        if not isinstance(node, ast.Call) or "encoding" in {word.arg for word in node.keywords}:
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        modes = [text for text in texts if isinstance(text, str) and set(text) <= set("rwxat+b")]
        opens = isinstance(node.func, ast.Name) or modes and len(node.args) == 1
        if name == "open" and opens and not any("b" in mode for mode in modes):
            yield node.lineno
        if name == "read_text" and not node.args or name == "write_text" and len(node.args) == 1:
            yield node.lineno


def test_text_files_are_opened_in_utf_8():
    found = {file: list(without_encoding(file.read_text(encoding="utf-8"))) for file in FILES}
    assert {str(file): lines for file, lines in found.items() if lines} == {}


@pytest.mark.parametrize("call", ["p.read_text()", "p.write_text(t)", "open(p)", "p.open('w')"])
def test_a_call_without_encoding_is_found(call):
    assert list(without_encoding(call)) == [1]


@pytest.mark.slow
def test_the_core_is_imported_without_the_modules_that_windows_lacks():
    modules = ("swinv2_backbone", "swinv2_backbone.checkpoints", "swinv2_backbone.kernels")
    code = f"import sys; sys.modules.update(dict.fromkeys({ABSENT}))\n"
    code += "".join(f"import {module}\n" for module in modules)
    code += "from swinv2_backbone import build_backbone, load_checkpoint"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_workers_end_where_there_is_no_sigchld(monkeypatch):
    monkeypatch.delattr(signal, "SIGCHLD")
    killed = []
    child = SimpleNamespace(daemon=True, kill=lambda: killed.append(True))
    monkeypatch.setattr(multiprocessing, "active_children", lambda: [child])
    workers._kill_workers()
    assert killed == [True]


@pytest.mark.parametrize(("platform", "asked"), [("linux", ["terminate"]), ("win32", [])])
def test_processes_are_not_killed_by_the_first_ctrl_c_on_windows(monkeypatch, platform, asked):
    monkeypatch.setattr(sys, "platform", platform)
    done: list[str] = []
    _ask_to_stop(SimpleNamespace(terminate=lambda: done.append("terminate")))
    assert done == asked


def test_what_a_spawned_worker_gets_can_be_pickled(tmp_path):
    small_training.register(tmp_path / "images")
    try:
        loader = train_loader_from_config(small_training.config(tmp_path, 1, 1))
    finally:
        small_training.forget()
    images = DrawnImages(loader.records, loader.mapper, loader.seed)
    copied = pickle.loads(ForkingPickler.dumps(images))
    (draw,) = loader.next_draws(1)
    (one, other) = (found[draw].record["image"] for found in (images, copied))
    assert one.equal(other)
