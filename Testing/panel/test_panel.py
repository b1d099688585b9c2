"""The panel as a user meets it, on real widgets and a real scene."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest


def test_apply_says_why_it_cannot_be_pressed(panel, picture) -> None:
    assert not panel.ui.applyButton.enabled
    assert "Choose an image" in panel.ui.applyButton.toolTip
    picture(panel, "panel-empty")


def test_an_image_enables_apply_and_a_bad_value_disables_it(panel, slicer, picture) -> None:
    from slicer_double.application import settle

    node = panel.module.loadPhantom()
    panel.initializeParameterNode()
    settle()
    assert panel.ui.inputSelector.currentNodeID == node.GetID()
    assert panel.ui.applyButton.enabled
    panel.ui.spo2_percentEdit.text = "0.97"
    settle()
    assert not panel.ui.applyButton.enabled
    assert "97" in panel.ui.applyButton.toolTip
    picture(panel, "panel-bad-value")
    panel.ui.spo2_percentEdit.text = "97 %"
    settle()
    assert panel.ui.applyButton.enabled


def test_it_fits_a_dock_of_400_pixels(panel) -> None:
    panel.ui.modelsGroupBox.collapsed = False
    assert panel.window.minimumSizeHint().width() <= 400


# a run


@pytest.fixture
def loaded(panel):
    """The panel with a phantom chosen."""
    from slicer_double.application import settle

    node = panel.module.loadPhantom()
    panel.initializeParameterNode()
    panel.node.device = "cpu"
    settle()
    yield node
    panel.logic.stopProcessing()


def wait_for(panel, seconds: float = 120) -> None:
    from slicer_double.application import settle

    end = time.monotonic() + seconds
    while panel.isRunning():
        assert time.monotonic() < end, panel.runner.step
        settle()
        time.sleep(0.01)
    settle()


def alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.is_file() and stat.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"


def node_count(slicer) -> int:
    return slicer.mrmlScene.GetNumberOfNodes()


def test_a_run_does_not_block_and_its_results_are_shown(panel, loaded, picture) -> None:
    panel.ui.applyButton.click()
    assert panel.isRunning(), "the model is loaded elsewhere"
    assert panel.ui.applyButton.text == "Cancel"
    assert "Starting" in panel.ui.statusLabel.text
    wait_for(panel)
    assert panel.ui.applyButton.text == "Apply"
    results = panel.logic.results(loaded)
    assert panel.ui.findingsTable.rowCount == results.table.GetNumberOfRows()
    assert panel.ui.findingComboBox.currentText == results.findings[0] == results.shown
    assert panel.ui.certaintyTextLabel.text
    picture(panel, "panel-result")


def test_cancel_answers_within_a_second(panel, loaded, slicer, picture) -> None:
    before = node_count(slicer)
    panel.ui.applyButton.click()
    picture(panel, "panel-running")
    panel.ui.applyButton.click()
    assert panel.runner.job.run._deadline - time.monotonic() < 1, "then the process is ended"
    wait_for(panel)
    assert node_count(slicer) == before
    assert panel.ui.applyButton.enabled
    panel.ui.applyButton.click()
    wait_for(panel)
    assert panel.logic.results(loaded).table is not None


def test_an_image_that_is_removed_meanwhile_leaves_nothing(panel, loaded, slicer) -> None:
    panel.ui.applyButton.click()
    slicer.mrmlScene.RemoveNode(loaded)
    wait_for(panel)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 0
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0


@pytest.mark.parametrize("end", ["scene", "cleanup"])
def test_closing_the_scene_or_the_application_ends_the_process(panel, loaded, slicer, end) -> None:
    panel.ui.applyButton.click()
    child = panel.logic._worker.process_id
    assert alive(child)
    if end == "scene":
        slicer.mrmlScene.Clear()
    else:
        panel.cleanup()
    assert not panel.isRunning()
    assert not alive(child)
    assert panel.ui.applyButton.text == "Apply"


def test_switching_the_module_lets_a_run_go_on(panel, loaded) -> None:
    from slicer_double.application import settle

    panel.ui.applyButton.click()
    panel.exit()
    wait_for(panel)
    panel.enter()
    settle()
    assert panel.ui.findingsTable.rowCount == panel.logic.results(loaded).table.GetNumberOfRows()
    assert panel.ui.findingComboBox.count > 1


def test_a_crash_is_a_message_and_the_next_run_works(panel, loaded) -> None:
    from slicer_double.application import settle

    panel.ui.applyButton.click()
    os.kill(panel.logic._worker.process_id, 9)
    with pytest.raises(Exception, match="memory was full"):
        while panel.isRunning():
            settle()
            time.sleep(0.01)
    assert panel.ui.applyButton.text == "Apply"
    panel.ui.applyButton.click()
    wait_for(panel)
    assert panel.logic.results(loaded).table is not None


def fails(panel, match: str) -> None:
    """The run ends with a message, and nothing of it is left."""
    from slicer_double.application import settle

    with pytest.raises(Exception, match=match):
        while panel.isRunning():
            settle()
            time.sleep(0.01)
    assert not panel.isRunning()
    assert panel.ui.applyButton.text == "Apply"
    assert panel.ui.applyButton.enabled


def test_an_answer_that_is_cut_in_the_middle_is_a_message(panel, loaded, monkeypatch) -> None:
    from MediScanLib.prediction import engine

    real = engine.read_answer

    def cut(folder: Path):
        file = folder / "answer.json"
        file.write_bytes(file.read_bytes()[:1000])
        return real(folder)

    monkeypatch.setattr(engine, "read_answer", cut)
    panel.ui.applyButton.click()
    fails(panel, "cannot be read")
    assert panel.logic.results(loaded).table is None
    monkeypatch.undo()
    panel.ui.applyButton.click()
    wait_for(panel)
    assert panel.logic.results(loaded).table is not None


def test_a_full_disk_is_a_message(panel, loaded, monkeypatch) -> None:
    from slicer_double.application import settle

    from MediScanLib.prediction import exchange

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exchange.np, "save", full)
    panel.ui.applyButton.click()
    with pytest.raises(Exception, match=r"No space left on device.*Free some space"):
        settle()
    assert not panel.isRunning()
    assert panel.ui.applyButton.text == "Apply"
    monkeypatch.undo()
    panel.ui.applyButton.click()
    wait_for(panel)
    assert panel.logic.results(loaded).table is not None


def test_the_shortcut_works_while_the_module_is_open(panel, loaded, slicer, monkeypatch) -> None:
    from PySide6.QtWidgets import QMainWindow
    from slicer_double.pythonqt import Wrapper

    window = Wrapper(QMainWindow())
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: window)
    panel.enter()
    shortcut = panel.heatMap._shortcut
    assert shortcut._object.key().toString() == "Ctrl+Shift+H"
    before = panel.node.showHeatMap
    shortcut._object.activated.emit()
    assert panel.node.showHeatMap is not before
    panel.exit()
    assert panel.heatMap._shortcut is None
    assert not shortcut._object.isEnabled()
    panel.enter()
    panel.heatMap.exit()


def test_reloading_the_module_during_a_run_leaves_no_process(panel, loaded) -> None:
    panel.ui.applyButton.click()
    child = panel.logic._worker.process_id
    assert alive(child)
    panel.cleanup()  # what the application does before it makes the module anew
    assert not alive(child)


def test_results_of_an_image_go_with_it(panel, loaded, slicer) -> None:
    other = panel.module.loadPhantom()
    panel.ui.applyButton.click()
    wait_for(panel)
    assert panel.logic.results(loaded).table is not None
    slicer.mrmlScene.RemoveNode(loaded)
    for kind in ("vtkMRMLTableNode", "vtkMRMLTextNode"):
        ours = [node for node in slicer.util.getNodesByClass(kind) if node.GetAttribute("MediScan.Role")]
        assert ours == []
    assert slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") == [other]


def test_a_model_that_is_not_there_is_a_message(panel, loaded) -> None:
    from slicer_double.application import settle

    panel.node.modelName = "no-such-model"
    panel.ui.applyButton.click()
    with pytest.raises(Exception, match="no-such-model"):
        while panel.isRunning():
            settle()
            time.sleep(0.01)
    assert panel.ui.applyButton.enabled
