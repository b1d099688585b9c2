"""Where images are looked at: the panel with a real MediScan server."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="the server is not installed")

from serving import RunningServer, free_port, make_bundle

from MediScanLib.prediction.connection_test import ConnectionTest


@pytest.fixture(autouse=True)
def settled():
    yield
    from slicer_double.application import settle

    settle()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    make_bundle(models)
    with RunningServer(tmp_path_factory.mktemp("server") / "data", models) as running:
        yield running


def test_this_computer_is_where_images_are_looked_at_unless_the_user_says_otherwise(panel) -> None:
    assert panel.ui.engineComboBox.currentText == "this computer"
    assert panel.ui.serverWidget._object.isHidden()
    assert panel.ui.deviceComboBox.enabled
    panel.ui.engineComboBox.setCurrentIndex(1)
    assert not panel.ui.serverWidget._object.isHidden()
    assert not panel.ui.deviceComboBox.enabled, "the server chooses its device"


def test_connection_is_tested_and_the_models_of_the_server_are_offered(panel, server, wait, picture) -> None:
    panel.ui.engineComboBox.setCurrentIndex(1)
    panel.ui.serverAddressEdit.text = server.url
    panel.ui.testConnectionButton.click()
    assert not panel.ui.testConnectionButton.enabled, "one question at a time"
    wait(lambda: panel.ui.testConnectionButton.enabled)
    assert "Connected to MediScan" in panel.ui.serverStatusLabel.text
    assert "toy-random" in panel.ui.serverStatusLabel.text
    assert panel.node.modelName == panel.ui.modelComboBox.currentText == "toy-random"
    picture(panel, "panel-server")
    panel.ui.engineComboBox.setCurrentIndex(0)
    assert panel.ui.serverStatusLabel.text == "", "what was said was said of the server"


def test_nobody_there_is_said(panel, wait, picture) -> None:
    panel.ui.engineComboBox.setCurrentIndex(1)
    panel.ui.serverAddressEdit.text = f"http://127.0.0.1:{free_port()}"
    panel.ui.testConnectionButton.click()
    wait(lambda: panel.ui.testConnectionButton.enabled)
    assert "127.0.0.1" in panel.ui.serverStatusLabel.text
    assert "Connected" not in panel.ui.serverStatusLabel.text
    picture(panel, "panel-server-away")


@pytest.mark.parametrize("address", ["", "no address", "ftp://host", "http://hospital.example:8800"])
def test_an_address_that_cannot_be_used_is_said_at_once(panel, address) -> None:
    panel.ui.engineComboBox.setCurrentIndex(1)
    panel.ui.serverAddressEdit.text = address
    panel.ui.testConnectionButton.click()
    assert panel.ui.serverStatusLabel.text
    assert panel.ui.testConnectionButton.enabled


def test_apply_runs_on_the_server_and_the_result_is_shown(panel, server, radiograph, slicer, wait) -> None:
    from slicer_double.application import settle

    from MediScanLib.scene.volumes import volume_from_image

    node = volume_from_image(slicer.mrmlScene, radiograph, "chest")
    panel.initializeParameterNode()
    settle()
    panel.ui.engineComboBox.setCurrentIndex(1)
    panel.ui.serverAddressEdit.text = server.url
    panel.node.modelName = "toy-random"
    panel.ui.applyButton.click()
    assert panel.runner.busy
    wait(lambda: not panel.runner.busy)
    said = panel.logic.predictionFields(node)
    assert said is not None, panel.ui.statusLabel.text
    assert said["provenance"]["model"] == "toy-random"
    assert panel.ui.findingsTable.rowCount == 5


def test_the_choice_survives_a_restart_and_the_token_does_not(panel, slicer) -> None:
    panel.ui.engineComboBox.setCurrentIndex(1)
    panel.ui.serverAddressEdit.text = "https://host:8800"
    panel.ui.serverTokenEdit.text = "a-token-that-nobody-else-may-see"
    again = panel.module.MediScanWidget(type("Parent", (), {"isEntered": True})())
    again.setup()
    try:
        assert again.ui.engineComboBox.currentIndex == 1
        assert again.ui.serverAddressEdit.text == "https://host:8800"
        assert again.ui.serverTokenEdit.text == ""
    finally:
        again.cleanup()
    assert "a-token-that" not in slicer.mrmlScene.GetSceneXMLString()


def test_a_question_that_is_not_waited_for_leaves_no_process() -> None:
    asked = ConnectionTest(f"http://127.0.0.1:{free_port()}")
    asked.close()
    assert asked._process.poll() is not None
