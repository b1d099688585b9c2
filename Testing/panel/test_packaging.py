"""What is packaged for Slicer agrees with what lies on disk, and the pieces of the module agree with each other."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

from MediScanLib.network.bundle import DEFAULT_BUNDLE
from MediScanLib.notice import RESEARCH_USE_NOTICE
from MediScanLib.study.fields import FIELDS

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "MediScan" / "MediScan.py"
SECTIONS = sorted((ROOT / "MediScan" / "MediScanPanel").glob("*.py"))
UI = ROOT / "MediScan" / "Resources" / "UI" / "MediScan.ui"
SLICER_BRINGS = {"numpy", "pydicom", "pillow", "simpleitk"}
COMMAND_LINE_ONLY = {"click", "tqdm"}


def cmake_list(file, name):
    """Entries of `set(name ...)`, with module names filled in."""
    text = (ROOT / file).read_text(encoding="utf-8")
    body = re.search(rf"set\({name}\s+(.*?)\)", text, re.DOTALL)
    assert body, f"{file} has no list {name}"
    return [entry.replace("${MODULE_NAME}", "MediScan") for entry in body[1].split()]


def cmake_value(name):
    """Value of `set(name "value")`, which the extensions index reads line by line."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    match = re.search(rf'^set\({name} "([^"\n]*)"\)$', text, re.MULTILINE)
    assert match, f"CMakeLists.txt has no {name} on a line of its own"
    return match[1]


def on_disk(folder, pattern):
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob(pattern)
        if path.is_file() and "__pycache__" not in path.parts
    }


def check_list(file, name, expected):
    listed = cmake_list(file, name)
    assert len(listed) == len(set(listed)), f"{file}: {name} names a file twice"
    missing, stale = sorted(expected - set(listed)), sorted(set(listed) - expected)
    assert not missing, f"add to {name} in {file}: {' '.join(missing)}"
    assert not stale, f"remove from {name} in {file}: {' '.join(stale)}"


def test_library_is_packaged():
    check_list("MediScanLib/CMakeLists.txt", "MediScanLib_PYTHON_SCRIPTS", on_disk("MediScanLib", "*.py"))


def test_module_is_packaged():
    resources = {path.removeprefix("MediScan/") for path in on_disk("MediScan/Resources", "*")}
    check_list("MediScan/CMakeLists.txt", "MODULE_PYTHON_RESOURCES", resources)
    scripts = {path.removeprefix("MediScan/") for path in on_disk("MediScan", "*.py")}
    check_list("MediScan/CMakeLists.txt", "MODULE_PYTHON_SCRIPTS", scripts)


def test_models_are_packaged():
    text = (ROOT / "MediScanLib" / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "${MediScan_SOURCE_DIR}/Resources/Models/*/*" in text
    nested = [path for path in on_disk("Resources/Models", "*") if len(Path(path).parts) != 4]
    assert not nested, f"the pattern in MediScanLib/CMakeLists.txt does not reach {nested}"


def test_every_subdirectory_exists():
    for file in ("CMakeLists.txt", "Testing/CMakeLists.txt", "Testing/slicer/CMakeLists.txt"):
        for name in re.findall(r"add_subdirectory\((\w+)\)", (ROOT / file).read_text(encoding="utf-8")):
            assert ((ROOT / file).parent / name / "CMakeLists.txt").is_file()
    for script in re.findall(r"SCRIPT (\w+\.py)", (ROOT / "Testing/slicer/Python/CMakeLists.txt").read_text("utf-8")):
        assert (ROOT / "Testing" / "slicer" / "Python" / script).is_file()


@pytest.mark.parametrize("name", ["HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "DEPENDS"])
def test_extension_meta_information(name):
    assert cmake_value(f"EXTENSION_{name}")


def test_home_address_stands_in_one_place():
    home = cmake_value("EXTENSION_HOMEPAGE")
    for name in ("EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"):
        for url in cmake_value(name).split():
            assert url.startswith("${EXTENSION_HOMEPAGE}/raw/main/")
            assert (ROOT / url.split("/main/")[1]).is_file(), f"{name} names a picture that is not there"
    entry = json.loads((ROOT / "MediScan.json").read_text(encoding="utf-8"))
    assert entry["scm_url"] == home, "scm_url in MediScan.json is not EXTENSION_HOMEPAGE in CMakeLists.txt"


def test_catalog_entry():
    """Properties and types of Slicer's extension catalog schema 1.0.1."""
    entry = json.loads((ROOT / "MediScan.json").read_text(encoding="utf-8"))
    types = {
        "$schema": str,
        "category": str,
        "scm_url": str,
        "scm_revision": str,
        "scm_type": str,
        "build_dependencies": list,
        "build_subdirectory": str,
        "enabled": bool,
        "tier": int,
    }
    assert {"$schema", "category", "scm_url"} <= set(entry) <= set(types)
    assert all(isinstance(value, types[key]) for key, value in entry.items())
    assert entry["$schema"].endswith("slicer-extension-catalog-entry-schema-v1.0.1.json#")
    assert entry["category"] == cmake_value("EXTENSION_CATEGORY")
    assert entry["build_dependencies"] == cmake_value("EXTENSION_DEPENDS").split()
    assert 1 <= entry["tier"] <= 5


@pytest.mark.parametrize("file", ["MediScan.png", "MediScan/Resources/Icons/MediScan.png"])
def test_icon(file):
    with Image.open(ROOT / file) as icon:
        assert icon.size == (128, 128)
        assert len(icon.convert("RGB").getcolors(128 * 128)) > 50, "the icon is blank"


def test_packages_of_the_panel():
    """The module's list says the same versions as pyproject.toml and leaves out what must not be installed."""
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {r.name.lower(): r for r in map(Requirement, project["dependencies"])}
    lines = (ROOT / "MediScan/Resources/requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = {r.name.lower(): r for r in map(Requirement, [line for line in lines if not line.startswith("#")])}
    for name, requirement in listed.items():
        assert requirement == wanted[name], f"{requirement} is not what pyproject.toml says"
    assert set(wanted) - set(listed) == {"torch", *SLICER_BRINGS, *COMMAND_LINE_ONLY}
    packages = (ROOT / "MediScanLib/scene/packages.py").read_text(encoding="utf-8")
    assert f'TORCH_REQUIREMENT = "{wanted["torch"].specifier}"' in packages


def test_sample_data():
    samples = json.loads((ROOT / "MediScan/Resources/SampleData/samples.json").read_text(encoding="utf-8"))
    for sample in samples:
        assert set(sample) == {"name", "url", "file", "sha256", "credit", "license"}
        assert len(sample["sha256"]) == hashlib.sha256().digest_size * 2
        assert re.search(r"/[0-9a-f]{40}/", sample["url"]), "the address must name a commit, so that it never changes"
    assert len({sample["name"] for sample in samples}) == len(samples)


@pytest.fixture(scope="module")
def module():
    """Everything at file scope of the module and of its sections."""
    return ast.Module([node for file in (MODULE, *SECTIONS) for node in ast.parse(file.read_text("utf-8")).body], [])


@pytest.fixture(scope="module")
def ui():
    return ElementTree.parse(UI).getroot()


def class_named(module, name):
    return next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name)


def parameters(module):
    body = class_named(module, "MediScanParameterNode").body
    return [node.target.id for node in body if isinstance(node, ast.AnnAssign)]


def bound_names(ui):
    return [
        property_.findtext("string")
        for property_ in ui.iter("property")
        if property_.get("name") == "SlicerParameterName"
    ]


def test_bound_parameters_exist(module, ui):
    bound = bound_names(ui)
    assert len(bound) == len(set(bound))
    assert set(bound) <= set(parameters(module))
    by_code = {"modelName", "finding"}  # their choices are known only when running
    assert set(parameters(module)) - set(bound) == by_code


def test_every_clinical_field_has_a_widget(module, ui):
    assert [name for name in parameters(module) if name in FIELDS] == list(FIELDS)
    texts = {widget.get("name"): widget for widget in ui.iter("widget")}
    for name, info in FIELDS.items():
        kind = "ComboBox" if info.choices else "Edit"
        assert label(texts[f"{name}{kind}Label"]) == f"{info.title}:"
        assert label(texts[f"{name}UnitLabel"]) == info.unit
        tip = next(p for p in texts[f"{name}{kind}"].iter("property") if p.get("name") == "toolTip")
        assert info.description in tip.findtext("string")
        assert info.choices or info.range_text in tip.findtext("string")


def label(widget):
    return next(p for p in widget.iter("property") if p.get("name") == "text").findtext("string") or ""


def test_widgets_that_the_code_uses_exist(module, ui):
    names = {widget.get("name") for widget in ui.iter("widget")}
    used = {
        node.attr
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "ui"
    }
    assert used
    assert used <= names


def test_scene_reaches_every_mrml_widget(ui):
    wanted = {
        widget.get("name")
        for widget in ui.iter("widget")
        if widget.get("class", "").startswith("qMRML") and widget.get("class") != "qMRMLWidget"
    }
    connected = {
        connection.findtext("receiver")
        for connection in ui.iter("connection")
        if connection.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"
        and connection.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"
        and connection.findtext("sender") == ui.findtext("class")
    }
    assert connected == wanted
    declared = {custom.findtext("class") for custom in ui.iter("customwidget")}
    custom = {widget.get("class") for widget in ui.iter("widget") if not widget.get("class").startswith("Q")}
    assert declared == custom


def test_no_custom_styling(ui):
    assert not [p for p in ui.iter("property") if p.get("name") in ("styleSheet", "palette", "font")]
    assert not [file for file in (MODULE, *SECTIONS) if "setStyleSheet" in file.read_text(encoding="utf-8")]


def test_notice_is_the_one_of_every_output(ui, module):
    notice = next(widget for widget in ui.iter("widget") if widget.get("name") == "noticeLabel")
    assert label(notice) == RESEARCH_USE_NOTICE
    assert RESEARCH_USE_NOTICE in MODULE.read_text(encoding="utf-8")


def test_default_model_is_the_shipped_one(module):
    value = next(
        node.value.value
        for node in module.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DEFAULT_MODEL"
    )
    assert value == DEFAULT_BUNDLE


def test_nothing_heavy_at_file_scope(module):
    """Opening the application must not load, nor ask for, packages that Slicer does not bring."""
    allowed = {*sys.stdlib_module_names, "qt", "slicer", "vtk"}
    light = {
        "MediScanLib.errors",
        "MediScanLib.prediction.colormaps",
        "MediScanLib.prediction.explanations.methods",
        "MediScanLib.study.fields",
        "MediScanLib.study.values",
    }
    for node in module.body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and not node.module.startswith("MediScanPanel"):
            names = [node.module]
        for name in names:
            assert name in light or name.split(".")[0] in allowed, f"{name} is imported at file scope"
