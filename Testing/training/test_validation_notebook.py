"""The notebook in the documents, cell by cell, as a reader would run it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "validation.ipynb"
PICTURES = 2
"""That it draws: a case under three methods, and curves."""

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")


def executed(folder, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.delenv("MEDISCAN_DATA", raising=False)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def printed(notebook):
    outputs = [one for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs]
    return "".join(one.text for one in outputs if one.output_type == "stream" and one.name == "stdout")


def pictures(notebook, folder, name):
    found = [
        one.data["image/png"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for one in cell.outputs
        if one.output_type == "display_data" and "image/png" in one.data
    ]
    for number, data in enumerate(found):
        (folder / f"{name}-{number}.png").write_bytes(base64.b64decode(data))
    return found


def test_it_runs_anywhere(tmp_path, monkeypatch, output_folder):
    notebook = executed(tmp_path, monkeypatch)
    said = printed(notebook)
    assert "cases.csv finished.jsonl report.html validation.json" in said
    for method in ("gradcam", "gradcam++", "layercam"):
        assert f"\n{method} " in said
    assert "9 lines with" in said, "the three of test with a box, under three methods"
    assert "phantoms: AUC without clinical values - AUC as it is = +0.000" in said
    assert len(pictures(notebook, output_folder, "notebook")) == PICTURES


def test_it_is_kept_without_outputs():
    """Figures in a document would be of another machine and another model."""
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")


def test_the_documents_name_it():
    assert NOTEBOOK.name in (NOTEBOOK.parent / "user-guide.md").read_text(encoding="utf-8")
