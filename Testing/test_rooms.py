"""The rooms of the house: who may import whom, and what must stay light."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]

HEAVY = {"torch", "monai", "vtk", "vtkmodules", "slicer", "SimpleITK"}
HEAVIER_THAN_NOTHING = HEAVY | {"numpy", "pydantic", "pydicom", "PIL", "scipy", "yaml", "click"}


def contracts() -> dict[str, dict]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    return {contract["type"]: contract for contract in settings["contracts"]}


def rooms() -> set[str]:
    folder = ROOT / "MediScanLib"
    inside = (path for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file())
    return {f"MediScanLib.{path.stem}" for path in inside if path.stem != "__init__"}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh Python has loaded after the statement."""
    script = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.split())


def test_a_room_imports_only_from_rooms_before_it(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    status = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert status == 0, capsys.readouterr().out


def test_every_room_has_its_place_in_the_order():
    layers = " ".join(contracts()["layers"]["layers"])
    placed = set(re.findall(r"MediScanLib\.\w+", layers))
    assert rooms() <= placed, "add new rooms to the layers in pyproject.toml"


def test_only_the_scene_may_import_slicer_and_vtk():
    forbidden = contracts()["forbidden"]
    assert {"vtk", "vtkmodules", "slicer"} <= set(forbidden["forbidden_modules"])
    light = {"MediScanLib.errors", "MediScanLib.notice", "MediScanLib.progress", "MediScanLib.scene"}
    assert rooms() - light <= set(forbidden["source_modules"])


def test_the_package_alone_loads_nothing():
    assert not loaded_by("import MediScanLib") & HEAVIER_THAN_NOTHING


def test_names_of_the_package_load_what_they_need():
    assert "torch" not in loaded_by("from MediScanLib import ClinicalRecord, MedicalImage")
    assert "torch" in loaded_by("from MediScanLib import Predictor")


@pytest.mark.parametrize(
    "module",
    [
        "cli",
        "config",
        "errors",
        "progress",
        "network.card",
        "prediction.result",
        "report.files",
        "study.finding",
        "study.image",
        "study.record",
        "study.record_files",
    ],
)
def test_what_a_face_needs_before_there_is_a_model_is_light(module):
    assert not loaded_by(f"import MediScanLib.{module}") & HEAVY


def test_reading_needs_no_network_library():
    modules = loaded_by("import MediScanLib.study.reading, MediScanLib.study.phantom, MediScanLib.report.picture")
    assert not modules & (HEAVY - {"SimpleITK"})


def test_all_rooms_together_load_neither_slicer_nor_vtk():
    names = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for room in ("study", "network", "prediction", "report")
        for path in (ROOT / "MediScanLib" / room).rglob("*.py")
        if path.stem not in ("__init__", "decoder_child")
    )
    modules = loaded_by("\n".join(chain(("import MediScanLib.cli",), (f"import {name}" for name in names))))
    assert "torch" in modules
    assert not modules & {"vtk", "vtkmodules", "slicer", "qt", "ctk"}
