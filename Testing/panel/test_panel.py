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


# a run


@pytest.fixture
def loaded(panel):
    """The panel with a phantom chosen."""
    from slicer_double.application import settle

    node = panel.module.loadPhantom()
    panel.initializeParameterNode()
    panel._parameterNode.device = "cpu"
    settle()
    yield node
    panel.logic.stopProcessing()


def wait_for(panel, seconds: float = 120) -> None:
    from slicer_double.application import settle

    end = time.monotonic() + seconds
    while panel.isRunning():
        assert time.monotonic() < end, panel._run.step
        settle()
        time.sleep(0.01)
    settle()


def alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.is_file() and stat.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"


def node_count(slicer) -> int:
    return slicer.mrmlScene.GetNumberOfNodes()


def test_a_run_does_not_block_and_its_results_are_shown(panel, loaded, picture) -> None:
    started = time.monotonic()
    panel.ui.applyButton.click()
    assert time.monotonic() - started < 2, "the model is loaded elsewhere"
    assert panel.isRunning()
    assert panel.ui.applyButton.text == "Cancel"
    assert "Starting" in panel.ui.statusLabel.text
    wait_for(panel)
    assert panel.ui.applyButton.text == "Apply"
    results = panel.logic.results(loaded)
    assert panel.ui.findingsTableView.mrmlTableNode() is results.table
    assert panel.ui.findingComboBox.currentText == results.findings[0] == results.shown
    assert panel.ui.certaintyTextLabel.text
    picture(panel, "panel-result")


def test_cancel_answers_within_a_second(panel, loaded, slicer, picture) -> None:
    before = node_count(slicer)
    panel.ui.applyButton.click()
    picture(panel, "panel-running")
    panel.ui.applyButton.click()
    started = time.monotonic()
    wait_for(panel)
    assert time.monotonic() - started < 1.5
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
    assert panel.ui.findingsTableView.mrmlTableNode() is panel.logic.results(loaded).table
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


def test_a_model_that_is_not_there_is_a_message(panel, loaded) -> None:
    from slicer_double.application import settle

    panel._parameterNode.modelName = "no-such-model"
    panel.ui.applyButton.click()
    with pytest.raises(Exception, match="no-such-model"):
        while panel.isRunning():
            settle()
            time.sleep(0.01)
    assert panel.ui.applyButton.enabled
