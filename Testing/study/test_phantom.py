from __future__ import annotations

import numpy as np

from MediScanLib.study.phantom import make_phantom


def test_phantom_says_that_it_is_one():
    phantom = make_phantom()
    assert "no patient" in phantom.source
    assert any("phantom" in warning.lower() for warning in phantom.warnings)
    corner = phantom.pixels[0, :40, :130]
    assert corner.max() == 4095, "the word PHANTOM is burnt in"


def test_opacity_stands_where_it_is_drawn():
    difference = make_phantom(opacity=1.0).pixels[0] - make_phantom(opacity=0.0).pixels[0]
    row, column = np.unravel_index(difference.argmax(), difference.shape)
    assert abs(row / 560 - (1 + 0.28) / 2) < 0.1
    assert abs(column / 480 - (1 + 0.45) / 2) < 0.1


def test_same_seed_same_phantom():
    assert np.array_equal(make_phantom(seed=3).pixels, make_phantom(seed=3).pixels)
    assert not np.array_equal(make_phantom(seed=3).pixels, make_phantom(seed=4).pixels)
