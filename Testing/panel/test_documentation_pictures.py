"""Pictures of the panel for the documentation, of a phantom: `make pictures` puts them where the documents look."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def phantom_result():
    """What the shipped model says of the phantom, which it has never seen the like of."""
    from MediScanLib.prediction.engine import InProcess
    from MediScanLib.prediction.exchange import Request
    from MediScanLib.study.phantom import make_phantom
    from MediScanLib.study.record import ClinicalRecord

    record = ClinicalRecord(age_years=63, sex="F", temperature_c=38.4, spo2_percent=91, leukocytes_1e9_per_l=13.2)
    return InProcess().predict(Request(make_phantom(), record, device="cpu"))


@pytest.fixture
def section(panel, output_folder):
    """Saves one section of the panel as a picture."""
    folder = output_folder / "docs"
    folder.mkdir(exist_ok=True)

    def save(name: str, *widgets: str, width: int = 420) -> None:
        from PySide6.QtCore import QPoint
        from PySide6.QtGui import QPixmap
        from slicer_double.application import settle

        panel.window.show()
        for _ in range(4):  # the first time tells how high the texts are at this width
            panel.window.resize(width, panel.window.layout().totalHeightForWidth(width))
            settle()
        parts = [getattr(panel.ui, widget)._object for widget in widgets]
        tops = [part.mapTo(panel.window, QPoint(0, 0)).y() for part in parts]
        low = max(top + part.height() for top, part in zip(tops, parts, strict=True))
        picture: QPixmap = panel.window.grab().copy(0, min(tops) - 4, width, low - min(tops) + 8)
        assert not picture.isNull()
        assert picture.save(str(folder / f"panel-{name}.png"))

    return save


def test_pictures(panel, slicer, section, phantom_result, runs, wait) -> None:
    node = panel.module.loadPhantom()
    panel.initializeParameterNode()
    panel.ui.welcomeFrame.visible = False
    panel.ui.modelsGroupBox.collapsed = False
    section("models", "modelsGroupBox")
    panel.ui.modelsGroupBox.collapsed = True
    section("study", "studyCollapsibleButton", "applyButton")
    panel.ui.clinicalCollapsibleButton.collapsed = False
    panel.node.temperature_c, panel.node.age_years, panel.node.spo2_percent = "38.4", "63", "0.91"
    section("patient", "clinicalCollapsibleButton", "statusLabel")
    panel.node.spo2_percent = "91"
    panel.ui.clinicalCollapsibleButton.collapsed = True
    panel.ui.applyButton.click()
    section("run", "applyButton", "statusLabel")
    runs[-1].answer = phantom_result
    wait(lambda: not panel.isRunning(), 5)
    section("findings", "findingsCollapsibleButton")
    section("heat-map", "heatMapCollapsibleButton")
    for name in ("compare", "whatIf", "review", "export"):
        getattr(panel.ui, f"{name}CollapsibleButton").collapsed = False
    panel.ui.whatIfFieldComboBox.currentIndex = panel.ui.whatIfFieldComboBox.findText("Temperature")
    panel.ui.whatIfSlider.value = 36.6
    wait(lambda: len(runs) == 2, 5)
    colder = panel.logic._image(node, False)
    from MediScanLib.prediction.engine import InProcess
    from MediScanLib.prediction.exchange import Request
    from MediScanLib.study.record import ClinicalRecord

    runs[-1].answer = InProcess().predict(Request(colder, ClinicalRecord(**runs[-1].request["record"]), device="cpu"))
    wait(lambda: not panel.isRunning(), 5)
    for name in ("compare", "whatIf", "review", "export"):
        section({"whatIf": "what-if"}.get(name, name), f"{name}CollapsibleButton")
