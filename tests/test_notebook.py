"""docs/tour.ipynb: its code is run as a reader runs it."""

from __future__ import annotations

import ast
import json

import pytest
from scripts import ROOT

NOTEBOOK = ROOT / "docs" / "tour.ipynb"
# Numbers that make it long, and shorter ones.
SHORTER = {
    "ITERATIONS = 400": "ITERATIONS = 2",
    "num_train=400, num_val=40": "num_train=8, num_val=8",
}


def code() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_is_python_without_stored_outputs():
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None
    for text in code():
        ast.parse(text)
    for number in SHORTER:
        assert sum(number in text for text in code()) == 1


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    nbclient = pytest.importorskip("nbclient")  # there are none for Python 3.10
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        for number, shorter in SHORTER.items():
            cell.source = cell.source.replace(number, shorter)
    client = nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 6  # data, loss, predictions, features, attention, bias
    assert (tmp_path / "detector.onnx").is_file()
