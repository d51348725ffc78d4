"""Every call that can create or change a file is durable, append-only, or listed with its reason.

The list is ``writers_table.py``.  ``test_written_files.py`` watches a training while it runs.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest
from documents import ROOT
from writers_table import CALLS, FOLDERS

# Functions of checkpoints/durable.py, and those of this package that write through them alone.
DURABLE = {"durable", "write_text", "unfinished", "write_picture", "write_file", "first_text"}
METHODS = {  # names that write in any object's or module's hands
    *("write_text", "write_bytes", "save", "savez", "savez_compressed", "savetxt", "tofile"),
    *("savefig", "imwrite", "imsave", "VideoWriter", "save_file", "save_model"),
    *("save_weights", "extractall", "extract", "writestr", "copyfile", "copyfileobj", "copytree"),
    *("copy2", "move", "rename", "renames", "link", "symlink", "symlink_to", "hardlink_to"),
    *("touch", "truncate", "mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryFile"),
    *("TemporaryDirectory", "FileHandler", "SummaryWriter", "setup_logger", "default_writers"),
    *("default_setup", "aoti_compile_and_package", "write_table", "to_csv", "to_parquet"),
}
OF_MODULES = {  # names that write as functions of these modules alone
    "copy": {"shutil"},
    "dump": {"json", "pickle", "yaml"},
    "replace": {"os"},
    "export": {"torch.onnx"},
}
REMEDY = (
    "write through checkpoints/durable.py (durable, write_text, or unfinished for a library that "
    "needs a path), or list the call in tests/writers_table.py with the reason why it is safe"
)


def is_writer(call: ast.Call) -> bool:
    """Whether a call can create or change a file, as far as its text tells."""
    if isinstance(call.func, ast.Name):
        return call.func.id in METHODS - DURABLE or (call.func.id == "open" and writes(call, 1))
    if not isinstance(call.func, ast.Attribute):
        return False
    name, owner = call.func.attr, ast.unparse(call.func.value)
    if owner == "os" and name == "open":
        return any(mode in ast.unparse(call) for mode in ("O_WRONLY", "O_RDWR"))
    if name == "open":
        return writes(call, 0) or writes(call, 1)
    if name == "replace" and len(call.args) == 1 and not call.keywords:
        return True  # of a path; that of a text has two arguments
    return name in METHODS or owner in OF_MODULES.get(name, ())


def writes(call: ast.Call, place: int) -> bool:
    """Whether the argument at a place, or ``mode``, is a mode for writing."""
    modes = [call.args[place]] if len(call.args) > place else []
    modes += [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
    texts = [mode.value for mode in modes if isinstance(mode, ast.Constant)]
    return any(
        isinstance(text, str) and len(text) < 4 and bool(set("wax+") & set(text)) for text in texts
    )


def short(call: ast.Call) -> str:
    """The function and the first argument of a call."""
    first = next(iter([*call.args, *(keyword.value for keyword in call.keywords)]), None)
    return f"{ast.unparse(call.func)}({'' if first is None else ast.unparse(first)[:40]})"


def writers_in(source: str) -> Counter[str]:
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return Counter(short(call) for call in calls if is_writer(call))


def found() -> dict[str, Counter[str]]:
    """The writing calls of each file outside of the folders that are listed as a whole."""
    files = [*(ROOT / "swinv2_backbone").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    names = {str(file.relative_to(ROOT)): file for file in sorted(files)}
    return {
        name: writers
        for name, file in names.items()
        if str(Path(name).parent) not in FOLDERS
        and (writers := writers_in(file.read_text(encoding="utf-8")))
    }


def test_every_call_that_writes_is_durable_or_listed_with_its_reason():
    for name, writers in found().items():
        unlisted = writers - Counter({call: count for call, (count, _) in listed(name).items()})
        assert not unlisted, f"{name}: {', '.join(unlisted)} may leave a cut file: {REMEDY}"


def test_every_listed_call_is_there():
    there = found()
    for name in CALLS:
        counts = Counter({call: count for call, (count, _) in listed(name).items()})
        stale = counts - there.get(name, Counter())
        assert not stale, f"{name} has no {', '.join(stale)}: remove it from writers_table.py"


def listed(name: str) -> dict[str, tuple[int, str]]:
    """The listed calls of a file, with how often each is there, and the reason."""
    entries = CALLS.get(name, {})
    return {call: one if isinstance(one, tuple) else (1, one) for call, one in entries.items()}


def test_every_folder_that_is_listed_as_a_whole_is_there():
    assert all((ROOT / folder).is_dir() for folder in FOLDERS)


@pytest.mark.parametrize(
    "source",
    [
        "open(path, 'w')",
        "open(path, mode='wb')",
        "path.open('a')",
        "path.open('r+b')",
        "PathManager.open(path, 'w')",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "path.write_text(text, encoding='utf-8')",
        "Path(folder, 'a').write_bytes(data)",
        "json.dump(content, file)",
        "np.save(path, array)",
        "np.savez_compressed(path, a=array)",
        "torch.save(state, path)",
        "onnx.save(model, path)",
        "torch.onnx.export(model, images, path)",
        "image.save(path)",
        "figure.savefig(path)",
        "cv2.imwrite(name, pixels)",
        "shutil.copy(one, other)",
        "shutil.move(one, other)",
        "os.replace(one, other)",
        "one.rename(other)",
        "one.replace(other)",
        "archive.extractall(folder)",
        "tempfile.TemporaryDirectory()",
    ],
)
def test_a_writing_call_is_found(source):
    assert sum(writers_in(source).values()) == 1


@pytest.mark.parametrize(
    "source",
    [
        "open(path)",
        "path.open('rb')",
        "os.open(folder, os.O_RDONLY)",
        "tarfile.open(path, 'r:')",
        "text.replace('a', 'b')",
        "dataclasses.replace(record, name='a')",
        "pixels.copy()",
        "durable(path)",
        "write_text(path, text)",
        "json.dumps(content)",
        "torch.export.export(model, images)",
    ],
)
def test_other_calls_are_not_taken_for_writing_ones(source):
    assert not writers_in(source)
