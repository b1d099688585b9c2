from __future__ import annotations

import numpy as np
import pytest
import SimpleITK

from MediScanLib.study.reading import read_image


def write(path, pixels):
    image = SimpleITK.GetImageFromArray(pixels)
    SimpleITK.WriteImage(image, str(path))
    return read_image(path)


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
def test_a_volume_with_air_at_minus_1000_is_ct(tmp_path, ending):
    pixels = np.random.default_rng(0).integers(-1000, 1200, (5, 20, 30)).astype(np.int16)
    pixels[0, 0, 0] = -2048
    image = write(tmp_path / f"ct.{ending}", pixels)
    assert (image.modality, image.units) == ("CT", "HU")
    assert image.pixels.min() == -1024, "padding is air"
    assert any("taken as the Hounsfield units" in warning for warning in image.warnings)


@pytest.mark.parametrize(
    "pixels",
    [
        np.random.default_rng(0).integers(0, 4000, (5, 20, 30)).astype(np.int16),  # MR
        np.random.default_rng(0).integers(-300, 300, (5, 20, 30)).astype(np.int16),  # a difference image
        np.random.default_rng(0).integers(-1000, 1200, (1, 20, 30)).astype(np.int16),  # one slice
        np.random.default_rng(0).integers(-30000, 30000, (5, 20, 30)).astype(np.int16),
    ],
)
def test_anything_else_stays_unknown(tmp_path, pixels):
    image = write(tmp_path / "other.nii", pixels)
    assert (image.modality, image.units, image.warnings) == (None, "intensity", ())
