"""What the page says of a prediction."""

from __future__ import annotations

import pytest

from MediScanLib.prediction.colormaps import COLOR_MAPS
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.scene.results import summary_lines
from MediScanLib.study.phantom import make_phantom
from MediScanLib.study.record import ClinicalRecord
from MediScanLib.web.colors import ramp
from MediScanLib.web.exporting import KINDS, export
from MediScanLib.web.shown import change_rows, shown


@pytest.fixture(scope="module")
def image():
    return make_phantom()


@pytest.fixture(scope="module")
def prediction(models, image):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDISCAN_MODELS", str(models))
        return Predictor.load("toy-random", "cpu")(image, ClinicalRecord(age_years=63, crp_mg_per_l=100))


def test_everything_that_must_be_said_is_there(prediction):
    page = shown(prediction, summary_lines(prediction))
    assert page["deferred"] is prediction.certainty.deferred
    assert page["reasons"] == [reason.message for reason in prediction.certainty.reasons]
    percents = [row["percent"] for row in page["findings"]]
    assert percents == sorted(percents, reverse=True)
    assert {row["label"] for row in page["findings"]} == set(prediction.probabilities)
    assert all(row["decision"][0] in "●○◐" for row in page["findings"]), "a shape beside the word"
    assert "2 of 10" in page["clinical"]
    assert ("not calibrated" in page["calibration"]) is not page["calibrated"]


def test_the_original_stays_beside_what_is_tried(prediction):
    same = change_rows(prediction, None)
    assert all(row["before"] == row["after"] and row["change"] == "=" for row in same)
    top, *rest = [finding.label for finding in sorted(prediction.findings, key=lambda one: -one.probability)]
    tried = {**dict.fromkeys(rest, 0.1), top: 0.0}
    rows = change_rows(prediction, tried)
    assert rows[0]["label"] == top
    assert rows[0]["before"] == same[0]["before"]
    assert rows[0]["after"] == "0.0 %"
    assert rows[0]["change"].startswith("▼")


@pytest.mark.parametrize(("kind", "begin"), [("json", b"["), ("csv", b"input"), ("html", b"<!"), ("png", b"\x89PNG")])
def test_files(image, prediction, kind, begin):
    content, media_type, name = export(kind, image, prediction, prediction.top.label)
    assert content.lstrip().lower().startswith(begin.lower())
    assert (media_type, name) == KINDS[kind]


@pytest.mark.parametrize("name", COLOR_MAPS)
def test_a_ramp_names_its_colors(name):
    assert ramp(name).count("rgb(") == 17
