from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from MediScanLib.config import InferenceConfig
from MediScanLib.errors import UsageError
from MediScanLib.prediction.colormaps import COLOR_MAPS, color_table
from MediScanLib.report.picture import LEAST_PANEL, MARGIN, PANEL_PIXELS, draw_prediction, save_picture
from MediScanLib.study.image import MedicalImage
from toys import make_predictor


def square_at(row: int, column: int, spacing=(1.0, 1.0, 1.0)) -> MedicalImage:
    pixels = np.zeros((1, 100, 100), dtype=np.float32)
    pixels[0, row - 8 : row + 8, column - 8 : column + 8] = 100
    return MedicalImage(pixels=pixels, spacing=spacing, source="square.png")


@pytest.mark.parametrize(("row", "column"), [(20, 30), (70, 80)])
def test_heat_is_drawn_on_the_square(row, column):
    image = square_at(row, column)
    picture = np.asarray(draw_prediction(image, make_predictor()(image)), dtype=float)
    top = MARGIN + 26
    panel = picture[top : top + PANEL_PIXELS, 2 * MARGIN + PANEL_PIXELS : 2 * (MARGIN + PANEL_PIXELS)]
    colored = panel.max(axis=2) - panel.min(axis=2)
    center = np.argwhere(colored > colored.max() * 0.7).mean(axis=0) / PANEL_PIXELS * 100
    assert np.abs(center - (row, column)).max() < 6
    plain = picture[top : top + PANEL_PIXELS, MARGIN : MARGIN + PANEL_PIXELS]
    assert (plain.max(axis=2) - plain.min(axis=2)).max() == 0, "the image beside it is grey"


def test_physical_proportions_are_kept():
    image = square_at(50, 50, spacing=(0.5, 1.0, 1.0))
    picture = draw_prediction(image, make_predictor()(image))
    assert picture.width < 2 * PANEL_PIXELS


def test_long_texts_are_wrapped_inside_the_picture(output_folder):
    image = MedicalImage(
        pixels=np.random.default_rng(0).random((1, 300, 40)),
        modality="MR",
        body_part="SKULL",
        source="/" + "very-long-name-" * 20 + ".dcm",
        warnings=("This warning goes on and on. " * 8,),
    )
    picture = draw_prediction(image, make_predictor()(image))
    save_picture(picture, output_folder / "report" / "long-texts.png")
    pixels = np.asarray(picture)
    assert (pixels[:, -4:] == pixels[0, 0]).all(), "nothing runs out of the picture"


def test_without_maps_there_is_nothing_to_draw():
    image = square_at(50, 50)
    with pytest.raises(UsageError, match="explainability"):
        draw_prediction(image, make_predictor(settings=InferenceConfig(explainability=False))(image))


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_picture(Image.new("RGB", (2, 2)), tmp_path / "p.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", COLOR_MAPS)
def test_color_maps_rise_steadily_in_lightness(name):
    table = color_table(name).astype(float) / 255
    luminance = table @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance) > -1 / 255).all(), "but for rounding to 8 bits"
    assert luminance[-1] - luminance[0] > 0.5


@pytest.fixture
def written(monkeypatch):
    """Every text that is drawn."""
    texts = []
    real = ImageDraw.ImageDraw.text

    def text(self, position, text, *args, **kwargs):
        texts.append(text)
        return real(self, position, text, *args, **kwargs)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return texts


@pytest.mark.parametrize("shape", [(20, 400), (400, 20), (1, 1), (1, 3000)])
def test_no_image_is_stretched(shape):
    pixels = np.ones((1, *shape), dtype=np.float32)
    pixels[0, 0, 0] = 0 if pixels.size > 1 else 1
    image = MedicalImage(pixels=pixels, window=(0.5, 1.0), source="strip.png")
    picture = np.asarray(draw_prediction(image, make_predictor()(image)), dtype=int)
    below = MARGIN + 26 + max(PANEL_PIXELS * shape[0] // max(shape), LEAST_PANEL[1])
    right = MARGIN + max(PANEL_PIXELS * shape[1] // max(shape), LEAST_PANEL[0])
    white = np.argwhere((picture[MARGIN + 26 : below, :right] > 250).all(axis=2))
    height, width = white.max(axis=0) - white.min(axis=0) + 1
    assert abs(height - max(1, PANEL_PIXELS * shape[0] / max(shape))) <= 1
    assert abs(width - max(1, PANEL_PIXELS * shape[1] / max(shape))) <= 1


def test_every_finding_stands_with_its_decision(written):
    image = square_at(50, 50)
    prediction = make_predictor()(image)
    low = prediction.findings[3].model_copy(update={"decision": "present", "threshold": 0.1})
    prediction.findings[3] = low
    draw_prediction(image, prediction)
    said = " ".join(written)
    assert f"fracture {low.probability:.2f} (present, threshold 0.10)" in said
    for finding in prediction.findings:
        assert f"{finding.label} {finding.probability:.2f} ({finding.decision}" in said


def test_a_volume_says_which_slice_is_shown_and_what_the_figure_stands_for(written):
    pixels = np.zeros((9, 64, 64), dtype=np.float32)
    pixels[6, 20:40, 20:40] = 1
    pixels[:, 0, 0] = 1
    image = MedicalImage(pixels=pixels, spacing=(1, 1, 1), source="volume")
    prediction = make_predictor()(image)
    picture = draw_prediction(image, prediction, "pneumonia")
    said = " ".join(written)
    assert "slice 6 of 9, counted from 0" in said
    assert prediction.volume_rule in said
    assert np.asarray(picture)[MARGIN + 26 + PANEL_PIXELS // 2, MARGIN + PANEL_PIXELS // 2].min() > 200


def test_names_in_any_script_leave_no_empty_boxes(written):
    image = MedicalImage(pixels=np.random.default_rng(0).random((1, 30, 30)), source="Zoë 胸部.png")
    draw_prediction(image, make_predictor()(image))
    assert any(text.startswith("Zoe ??.png") for text in written)


def test_almost_empty_image_is_not_drawn_black():
    pixels = np.zeros((1, 100, 100), dtype=np.float32)
    pixels[0, 50, 50:60] = 1
    image = MedicalImage(pixels=pixels, source="wire.png")
    picture = np.asarray(draw_prediction(image, make_predictor()(image)))
    assert picture[MARGIN + 26 : MARGIN + 26 + PANEL_PIXELS, MARGIN : MARGIN + PANEL_PIXELS].max() > 200
