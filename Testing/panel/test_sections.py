"""The panel's sections, each as a reader uses it, on real widgets, a real radiograph and a real prediction."""

from __future__ import annotations

import json
import sys
import types

import pytest


@pytest.fixture(autouse=True)
def settled():
    yield
    from slicer_double.application import settle

    settle()


def cells(table) -> list[list[str]]:
    """Texts of a table, and of the bars in it."""
    rows = []
    for row in range(table.rowCount):
        texts = []
        for column in range(table.columnCount):
            item, widget = table._object.item(row, column), table._object.cellWidget(row, column)
            texts.append(item.text() if item is not None else widget.text())
        rows.append(texts)
    return rows


def prediction_with(predicted, **changes):
    """The prediction with parts exchanged, as another study would bring it."""
    return predicted.model_copy(update=changes).with_maps(predicted.maps)


# study


def test_what_the_module_sees_in_the_image(panel, shown, picture) -> None:
    text = panel.ui.imageFactsLabel.text
    for fact in ("CR", "CHEST", "AP", "512 x 512", "single image", "no physical spacing"):
        assert fact in text
    assert "22" not in text, "no facts about the patient"


def test_models_are_searched_and_their_card_is_shown(panel, picture) -> None:
    panel.ui.modelsGroupBox.collapsed = False
    assert panel.ui.modelList.count >= 1
    panel.ui.modelSearchBox.text = "fracture chest"
    assert panel.ui.modelList.count >= 1
    assert "AUC" in panel.ui.modelCardBrowser.plainText
    picture(panel, "panel-models")
    panel.ui.modelSearchBox.text = "no such words"
    assert panel.ui.modelList.count == 0
    assert "No model" in panel.ui.modelCardBrowser.plainText
    assert panel.node.modelName == "mediscan-general", "a search chooses nothing"


@pytest.fixture
def own_models(panel, monkeypatch, tmp_path):
    """A home for the user's own models; the part of the panel that handles them is unfolded."""
    import slicer

    panel.ui.modelsGroupBox.collapsed = False
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: True)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path


def test_a_model_is_added_chosen_verified_and_removed(panel, own_models) -> None:
    from MediScanLib.network.bundle import load_bundle, save_bundle

    shipped = load_bundle("mediscan-general")
    mine = save_bundle(shipped.load_network(), shipped.card.model_copy(update={"name": "mine"}), own_models / "parent")
    panel.study.addModel(str(mine.folder))
    assert panel.ui.modelComboBox.currentText == panel.node.modelName == "mine"
    panel.ui.verifyModelButton.click()
    assert "as its card says" in panel.ui.modelStatusLabel.text
    panel.ui.removeModelButton.click()
    assert panel.node.modelName == "mediscan-general"
    assert panel.ui.modelComboBox.findText("mine") < 0


def test_a_model_that_came_with_the_module_cannot_be_removed(panel, own_models) -> None:
    from slicer_double.application import settle

    panel.ui.removeModelButton.click()
    with pytest.raises(Exception, match="mediscan-general"):
        settle()
    assert "mediscan-general" in panel.ui.modelStatusLabel.text
    assert panel.ui.modelComboBox.findText("mediscan-general") >= 0


def test_an_address_without_a_hash_is_refused(panel, own_models) -> None:
    from slicer_double.application import settle

    panel.ui.modelAddressEdit.text = "https://localhost:1/model.zip"
    panel.ui.addModelAddressButton.click()
    with pytest.raises(Exception, match="SHA-256"):
        settle()
    assert "SHA-256" in panel.ui.modelStatusLabel.text


# patient


def test_the_header_fills_in_and_says_so(panel, shown, picture) -> None:
    assert panel.ui.age_yearsEdit.placeholderText == "22 (from the image)"
    assert "M (from the image)" in panel.ui.sexComboBox.itemText(0)
    assert panel.ui.temperature_cEdit.placeholderText == "unknown"
    panel.ui.clinicalCollapsibleButton.collapsed = False
    panel.ui.temperature_cEdit.text = "384"
    assert panel.ui.temperature_cUnitLabel.text == "⚠ 25 to 45 °C"
    assert "384" in panel.ui.temperature_cUnitLabel.toolTip
    assert not panel.ui.applyButton.enabled
    assert "25 to 45" in panel.ui.statusLabel.text
    picture(panel, "panel-patient")
    panel.ui.temperature_cEdit.text = "38.4"
    assert panel.ui.temperature_cUnitLabel.text == "°C"
    assert panel.ui.applyButton.enabled


def test_clinical_values_are_saved_loaded_and_reset(panel, shown, tmp_path) -> None:
    panel.ui.temperature_cEdit.text = "101 F"
    panel.ui.sexComboBox.currentIndex = 1
    panel.patient.save(str(tmp_path / "patient.json"))
    assert json.loads((tmp_path / "patient.json").read_text()) == {
        "sex": "F",
        "temperature_c": pytest.approx(38.333, abs=0.01),
    }
    panel.ui.resetClinicalButton.click()
    assert panel.ui.temperature_cEdit.text == ""
    assert panel.ui.sexComboBox.currentIndex == 0
    panel.patient.load(str(tmp_path / "patient.json"))
    assert panel.ui.temperature_cEdit.text.startswith("38.3")
    assert panel.node.sex == "F"


def test_a_file_that_is_not_understood_changes_nothing(panel, shown, tmp_path) -> None:
    panel.ui.temperature_cEdit.text = "38.4"
    (tmp_path / "patient.json").write_text('{"temperature_c": 38.4, "fever": true}')
    with pytest.raises(Exception, match="fever"):
        panel.patient.load(str(tmp_path / "patient.json"))
    assert panel.ui.temperature_cEdit.text == "38.4"


# findings


def test_findings_are_shown_with_decisions_and_what_mattered(panel, shown, predicted, picture) -> None:
    rows = cells(panel.ui.findingsTable)
    assert [row[0] for row in rows] == sorted(
        predicted.probabilities, key=lambda label: -predicted.probabilities[label]
    )
    assert rows[0][2] == f"{100 * predicted.top.probability:.0f} %"
    words = {finding.label: finding.decision for finding in predicted.findings}
    assert all(words[row[0]] in row[1] for row in rows), "decisions are words, not colors alone"
    assert "calibrated" in panel.ui.certaintyTextLabel.text
    effects = cells(panel.ui.contributionsTable)
    assert len(effects) == len(predicted.clinical.used)
    assert any("Temperature 38.4 °C" in row[0] for row in effects)
    found = next(part for part in predicted.clinical.contributions if part.finding == predicted.top.label)
    assert effects[0][2] == f"{max(found.fields.values(), key=abs):+.2f}"
    assert "From the image: age, sex" in panel.ui.clinicalTextLabel.text
    picture(panel, "panel-findings")


def test_reasons_to_defer_stand_above_everything(panel, shown, predicted, picture) -> None:
    from MediScanLib.prediction.result import Certainty, DeferralReason

    reasons = [
        DeferralReason(code="novelty", message="This image is unlike those that the model was trained on. " * 3),
        DeferralReason(code="confidence", message="No finding reaches a probability of 50 %."),
    ]
    certainty = Certainty(label=predicted.top.label, deferred=True, reasons=reasons, novelty=2.5)
    panel.onPrediction(shown, prediction_with(predicted, certainty=certainty), jump=False)
    frame, table = panel.ui.deferralFrame, panel.ui.findingsTable
    picture(panel, "panel-deferred")
    assert frame.visible
    assert frame._object.geometry().bottom() < table._object.geometry().top()
    assert "Leave this one to a human" in panel.ui.deferralLabel.text
    assert "50 %" in panel.ui.deferralLabel.text
    assert "No reason" not in panel.ui.certaintyTextLabel.text


def test_severity_is_a_scale_with_its_meaning(panel, shown, predicted) -> None:
    from MediScanLib.prediction.result import Severity

    severe = Severity(applicable=True, score=0.7, grade="severe", scale="Brixia", value=12.6)
    panel.onPrediction(shown, prediction_with(predicted, severity=severe), jump=False)
    assert panel.ui.severityBar.value == 70
    assert "severe" in panel.ui.severityBar.text
    assert "12.6 on Brixia" in panel.ui.severityTextLabel.text
    none = Severity(applicable=False, reason="Severity was learned for pneumonia, not for fracture.")
    panel.onPrediction(shown, prediction_with(predicted, severity=none), jump=False)
    assert not panel.ui.severityBar._object.isVisibleTo(panel.ui.severityWidget._object)
    assert "not for fracture" in panel.ui.severityTextLabel.text


def test_a_result_of_other_values_says_so(panel, shown, predicted) -> None:
    panel.node.temperature_c, panel.node.spo2_percent = "38.4", "91 %"
    panel.node.leukocytes_1e9_per_l, panel.node.crp_mg_per_l = "13,2", "120"
    assert panel.ui.statusLabel.text == ""
    panel.ui.temperature_cEdit.text = "36.6"
    assert "other clinical values" in panel.ui.statusLabel.text
    assert panel.ui.applyButton.enabled
    panel.ui.temperature_cEdit.text = "101.12 F"
    assert panel.ui.statusLabel.text == "", "the same value in another unit is no change"
    panel.node.modelName = "another"
    assert "another model" in panel.ui.statusLabel.text


def test_an_image_without_a_result_shows_none_of_another(panel, shown) -> None:
    other = panel.module.loadPhantom()
    panel.node.inputVolume = other
    assert "No result yet" in panel.ui.certaintyTextLabel.text
    for widget in ("findingsTable", "deferralFrame", "severityWidget", "contributionsWidget"):
        assert not getattr(panel.ui, widget)._object.isVisibleTo(panel.ui.findingsCollapsibleButton._object)
    panel.node.inputVolume = shown
    assert panel.ui.findingsTable.rowCount == 5


# heat map


def test_every_control_of_the_heat_map_reaches_the_overlay(panel, shown, slicer) -> None:
    from MediScanLib.scene.overlay import find_overlay
    from MediScanLib.scene.style import style_of

    overlay = find_overlay(slicer.mrmlScene, shown)
    panel.ui.opacitySlider.value = 0.8
    panel.ui.thresholdSlider.value = 0.6
    panel.ui.outlineCheckBox.checked = True
    panel.ui.legendCheckBox.checked = False
    panel.ui.commonScaleCheckBox.checked = True
    panel.ui.colorsComboBox.currentIndex = 1
    style = style_of(overlay)
    assert (style.opacity, style.threshold, style.outline, style.legend, style.common_scale) == (
        0.8,
        0.6,
        True,
        False,
        True,
    )
    assert style.colors == panel.ui.colorsComboBox.currentText
    panel.ui.findingComboBox.currentIndex = 2
    overlay = find_overlay(slicer.mrmlScene, shown)
    assert overlay.GetAttribute("MediScan.Finding") == panel.ui.findingComboBox.currentText
    assert style_of(overlay) == style, "another finding is drawn like the last"
    panel.heatMap.toggle()
    assert not panel.ui.showHeatMapCheckBox.checked
    assert not style_of(find_overlay(slicer.mrmlScene, shown)).visible


# what if


def test_a_tried_value_moves_the_findings_beside_the_original(panel, shown, predicted, runs, wait, picture) -> None:
    panel.ui.whatIfCollapsibleButton.collapsed = False
    panel.ui.whatIfFieldComboBox.currentIndex = panel.ui.whatIfFieldComboBox.findText("Temperature")
    assert panel.ui.whatIfSlider.value == pytest.approx(38.4)
    panel.ui.whatIfSlider.value = 36.5
    wait(lambda: bool(runs), 5)
    asked = runs[0].request
    assert asked["record"]["temperature_c"] == 36.5
    assert asked["record"]["age_years"] == 22.0
    assert asked["prefill"] is False
    findings = [finding.model_copy(update={"probability": 0.2}) for finding in predicted.findings]
    runs[0].answer = prediction_with(predicted, findings=findings)
    wait(lambda: not panel.isRunning(), 5)
    rows = cells(panel.ui.whatIfTable)
    assert rows[0][1] == f"{100 * predicted.top.probability:.1f} %"
    assert all(row[2] == "20.0 %" for row in rows)
    assert "▼" in rows[0][3]
    assert "Temperature 36.5 °C" in panel.ui.whatIfStatusLabel.text
    picture(panel, "panel-what-if")
    assert panel.logic.predictionFields(shown)["clinical"]["used"]["temperature_c"] == 38.4, "nothing was overwritten"
    panel.ui.whatIfFieldComboBox.currentIndex = panel.ui.whatIfFieldComboBox.findText("Age")
    panel.ui.whatIfUnknownCheckBox.checked = True
    wait(lambda: len(runs) == 2, 5)
    assert runs[1].request["record"]["age_years"] is None
    assert runs[1].request["record"]["temperature_c"] == 36.5
    runs[1].answer = predicted
    wait(lambda: not panel.isRunning(), 5)
    panel.ui.whatIfResetButton.click()
    assert panel.whatIf.tried == {}


def test_apply_does_not_wait_for_a_tried_value(panel, shown, runs, wait) -> None:
    panel.ui.whatIfFieldComboBox.currentIndex = panel.ui.whatIfFieldComboBox.findText("Temperature")
    panel.ui.whatIfSlider.value = 36.5
    wait(lambda: bool(runs), 5)
    assert panel.ui.applyButton.text == "Apply", "a tried value is no run that one waits for"
    panel.ui.applyButton.click()
    assert panel.ui.applyButton.text == "Cancel"
    wait(lambda: len(runs) == 2, 5)
    assert panel.ui.applyButton.text == "Cancel"


# review


@pytest.fixture
def review_file(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDISCAN_REVIEWS", str(tmp_path / "reviews.sqlite"))
    return tmp_path / "reviews.sqlite"


def test_a_review_is_kept_in_the_scene_and_in_a_file(panel, shown, predicted, review_file, picture) -> None:
    from MediScanLib.report.reviews import ReviewStore

    panel.ui.reviewCollapsibleButton.collapsed = False
    assert predicted.top.label in panel.ui.reviewQuestionLabel.text
    assert not panel.ui.saveReviewButton.enabled
    panel.ui.disagreeRadioButton.checked = True
    panel.ui.correctedFindingComboBox.currentIndex = 0
    panel.ui.correctedSeverityCheckBox.checked = True
    panel.ui.correctedSeveritySlider.value = 0.4
    panel.ui.reviewNoteEdit.text = "Consolidation; Zoë agrees."
    panel.ui.drawRegionButton.click()
    region = panel.ui.reviewRegionSelector.currentNode()
    assert region.IsA("vtkMRMLMarkupsROINode")
    assert panel.ui.regionSelector.currentNode() is region
    region.SetCenter(-100.0, -100.0, 0.0)  # what the reader's hand does in a slice view
    region.SetSize(60.0, 40.0, 0.0)
    panel.ui.saveReviewButton.click()
    picture(panel, "panel-review")
    (review,) = ReviewStore(review_file).all()
    assert not review.agree
    assert review.corrected_label == panel.ui.correctedFindingComboBox.currentText
    assert review.corrected_severity == pytest.approx(0.4)
    assert review.note == "Consolidation; Zoë agrees."
    assert review.region
    assert str(review_file) in panel.ui.reviewStatusLabel.text
    assert panel.logic.review(shown)["note"] == review.note

    panel.node.inputVolume = panel.module.loadPhantom()
    assert panel.ui.reviewNoteEdit.text == ""
    panel.node.inputVolume = shown
    assert panel.ui.disagreeRadioButton.checked
    assert panel.ui.reviewNoteEdit.text == review.note


def test_a_review_that_cannot_be_written_is_told_and_stays_in_the_panel(panel, shown, monkeypatch, tmp_path) -> None:
    from slicer_double.application import settle

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEDISCAN_REVIEWS", str(tmp_path / "file" / "reviews.sqlite"))
    panel.ui.agreeRadioButton.checked = True
    panel.ui.reviewNoteEdit.text = "kept"
    panel.ui.saveReviewButton.click()
    with pytest.raises(Exception, match=r"reviews\.sqlite"):
        settle()
    assert "reviews.sqlite" in panel.ui.reviewStatusLabel.text
    assert panel.ui.reviewNoteEdit.text == "kept"


# export


def test_results_are_written_and_nothing_is_replaced(panel, shown, predicted, tmp_path, picture) -> None:
    panel.ui.exportDirectoryButton.directory = str(tmp_path)
    panel.ui.exportButton.click()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["chest_22_M.csv", "chest_22_M.html", "chest_22_M.json"], "without a window there are no views"
    (entry,) = json.loads((tmp_path / "chest_22_M.json").read_text())
    assert entry["findings"] == json.loads(predicted.to_json())["findings"]
    assert "data:image/" in (tmp_path / "chest_22_M.html").read_text()
    panel.ui.exportHtmlCheckBox.checked = False
    panel.ui.exportButton.click()
    assert (tmp_path / "chest_22_M-2.json").is_file()
    assert not (tmp_path / "chest_22_M-2.html").exists()
    assert "chest_22_M-2.json" in panel.ui.exportStatusLabel.text
    for box in panel.export._boxes().values():
        box.checked = False
    assert not panel.ui.exportButton.enabled


def test_a_folder_that_cannot_be_written_is_told(panel, shown, tmp_path) -> None:
    from slicer_double.application import settle

    (tmp_path / "file").write_text("")
    panel.ui.exportDirectoryButton.directory = str(tmp_path / "file" / "folder")
    panel.ui.exportButton.click()
    with pytest.raises(Exception, match="Choose another folder"):
        settle()
    assert "Choose another folder" in panel.ui.exportStatusLabel.text


def test_dicom_needs_an_image_of_the_database(panel, shown, tmp_path) -> None:
    from slicer_double.application import settle

    panel.ui.exportDirectoryButton.directory = str(tmp_path)
    assert not panel.ui.exportDatabaseCheckBox.enabled
    panel.ui.exportDicomCheckBox.checked = True
    assert panel.ui.exportDatabaseCheckBox.enabled
    panel.ui.exportButton.click()
    with pytest.raises(Exception, match="was not loaded from Slicer's DICOM database"):
        settle()
    assert "Load it with the DICOM module" in panel.ui.exportStatusLabel.text


def test_dicom_goes_into_the_study_and_the_database(panel, slicer, tmp_path, monkeypatch) -> None:
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("highdicom", reason="highdicom is not installed: pip install mediscan[dicom]")
    from slicer_double.application import settle

    from dicom_files import write_study
    from MediScanLib.scene.volumes import volume_from_image
    from MediScanLib.study.reading import read_image
    from toys import make_predictor

    path = write_study(tmp_path / "in" / "chest.dcm")
    image = read_image(path)
    prediction = make_predictor()(image)
    node = volume_from_image(slicer.mrmlScene, image, "chest")
    node.SetAttribute("DICOM.instanceUIDs", "1.2.826.0.1.3680043.8.498.1.1")
    panel.initializeParameterNode()
    settle()
    panel.onPrediction(node, prediction, jump=True)
    settle()
    imported: list[str] = []
    database = type("Database", (), {"fileForInstance": lambda self, uid: str(path)})()
    library = types.ModuleType("DICOMLib")

    def import_dicom(folder: str, **_: object) -> bool:
        imported.append(folder)
        return True

    library.DICOMUtils = types.SimpleNamespace(importDicom=import_dicom)  # type: ignore[attr-defined]
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    monkeypatch.setitem(sys.modules, "DICOMLib", library)
    for box in panel.export._boxes().values():
        box.checked = box is panel.ui.exportDicomCheckBox
    panel.ui.exportDatabaseCheckBox.checked = True
    panel.ui.exportDirectoryButton.directory = str(tmp_path / "out")
    panel.ui.exportButton.click()
    settle()
    folder = tmp_path / "out" / "chest-dicom"
    assert sorted(file.name for file in folder.iterdir()) == ["sc-pneumonia.dcm", "seg.dcm", "sr.dcm"]
    report = pydicom.dcmread(folder / "sr.dcm")
    assert report.StudyInstanceUID == "1.2.826.0.1.3680043.8.498.1.3"
    assert imported == [str(folder)]
    assert "chest-dicom" in panel.ui.exportStatusLabel.text


# notice


def test_the_notice_is_shown_once_and_its_core_always(panel, slicer) -> None:
    from slicer_double.pythonqt import Settings

    assert panel.ui.welcomeFrame._object.isVisibleTo(panel.window)
    assert "research use only" in panel.ui.noticeLabel.text
    panel.ui.welcomeButton.click()
    assert not panel.ui.welcomeFrame._object.isVisibleTo(panel.window)
    assert Settings().value("MediScan/NoticeUnderstood") == "true"
    again = panel.module.MediScanWidget(panel.parent)
    again.setup()
    assert not again.ui.welcomeFrame._object.isVisibleTo(again.window)
    again.cleanup()


# runs that make way for each other


def quiet_run(panel, node, done) -> None:
    panel.runner.start(node, {}, done, visible=False, modelName="mediscan-general", device="cpu")


def test_apply_waits_for_a_quiet_run_to_stop_and_keeps_the_model_loaded(panel, shown, runs, wait, monkeypatch) -> None:
    monkeypatch.setattr(panel.logic, "stopProcessing", lambda: pytest.fail("the process was ended"))
    quiet_run(panel, shown, lambda *_: pytest.fail("its answer is not wanted any more"))
    assert not panel.runner.busy
    panel.ui.applyButton.click()
    assert panel.runner.busy
    assert len(runs) == 1, "one run at a time"
    wait(lambda: len(runs) == 2)
    assert panel.runner.job.visible
    panel.ui.applyButton.click()
    wait(lambda: panel.runner.job is None)
    monkeypatch.undo()


def test_apply_that_waits_can_be_taken_back(panel, shown, runs, wait) -> None:
    quiet_run(panel, shown, lambda *_: None)
    panel.ui.applyButton.click()
    panel.ui.applyButton.click()
    assert not panel.runner.busy
    wait(lambda: panel.runner.job is None)
    assert len(runs) == 1


def test_a_heat_map_does_not_lie_over_another_frame(panel, shown, predicted, slicer, wait) -> None:
    import vtk

    from MediScanLib.scene.overlay import find_overlay
    from MediScanLib.scene.style import style_of

    def visible() -> bool:
        return style_of(find_overlay(slicer.mrmlScene, shown)).visible

    first, second = shown.GetImageData(), vtk.vtkImageData()
    second.DeepCopy(first)
    assert visible()
    shown.SetAndObserveImageData(second)
    wait(lambda: not visible())
    assert "not the one" in panel.ui.statusLabel.text
    shown.SetAndObserveImageData(first)
    wait(visible)
    assert "not the one" not in panel.ui.statusLabel.text
    shown.SetAndObserveImageData(second)
    wait(lambda: not visible())
    panel.onPrediction(shown, predicted, jump=False)  # Apply looked again, at the second
    assert visible()
