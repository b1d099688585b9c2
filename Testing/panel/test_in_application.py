"""The tests that run inside Slicer, tried on the stand-in as far as it reaches: so they are known to run at all.

What needs a main window or a module of the application is left to the application.
"""

from __future__ import annotations

import ast
import sys
import types
import unittest
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "slicer" / "Python"
MODULE = Path(__file__).resolve().parents[2] / "MediScan" / "MediScan.py"
NEEDS_THE_APPLICATION = {
    "test_module_is_loaded": "the module's place in the application",
    "test_sample_data": "the Sample Data module",
    "test_display": "the Colors module",
    "test_fits_a_narrow_dock": "the application's style",
    "test_segmentation": "the Volumes module",
}
NEEDS_A_WINDOW = {
    "test_the_current_slice_by_itself",
    "test_switching_the_module",
    "test_plot_by_slice",
    "test_original_and_heat_map",
    "test_two_findings",
    "test_image_only",
}


def names() -> list[str]:
    """Every test in the folder, as module.class.test."""
    found = []
    for file in (FOLDER / "MediScanModuleTest.py", FOLDER / "MediScanPanelTest.py", MODULE):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                tests = [part.name for part in node.body if getattr(part, "name", "").startswith("test_")]
                found += [f"{file.stem}.{node.name}.{test}" for test in tests]
    return found


def test_the_lists_name_tests_that_exist() -> None:
    assert {*NEEDS_THE_APPLICATION, *NEEDS_A_WINDOW} <= {name.rpartition(".")[2] for name in names()}


@pytest.mark.parametrize("name", names())
def test_in_the_stand_in(name, panel, slicer, monkeypatch) -> None:
    from slicer_double.application import settle

    test = name.rpartition(".")[2]
    if test in NEEDS_THE_APPLICATION:
        pytest.skip(f"needs the application: {NEEDS_THE_APPLICATION[test]}")
    monkeypatch.setitem(sys.modules, "MediScan", panel.module)
    monkeypatch.syspath_prepend(str(FOLDER))
    for module in ("MediScanModuleTest", "MediScanPanelTest"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    representation = types.SimpleNamespace(self=lambda: panel)
    slicer.modules.mediscan = types.SimpleNamespace(widgetRepresentation=lambda: representation)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromName(name).run(result)
    settle()
    for failed, trace in result.errors + result.failures:
        pytest.fail(f"{failed}: {trace}")
    if result.skipped:
        assert test in NEEDS_A_WINDOW, result.skipped
        pytest.skip("needs a main window")
    assert result.testsRun == 1
