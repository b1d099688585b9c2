"""Pictures of the slice views for the documentation, of a phantom; see `make pictures`."""

from __future__ import annotations

import numpy as np
from PIL import Image

from MediScanLib.prediction.engine import InProcess
from MediScanLib.prediction.exchange import Request
from MediScanLib.scene.comparison import corner_texts, go_to_place, show_side_by_side
from MediScanLib.scene.corner_text import annotate
from MediScanLib.scene.panes import panes_findings, panes_original
from MediScanLib.scene.session import add_prediction
from MediScanLib.scene.style import Style
from MediScanLib.scene.views import LEFT, RIGHT
from MediScanLib.scene.volumes import volume_from_image
from MediScanLib.study.phantom import make_phantom


def test_views(scene, make_view, output_folder):
    folder = output_folder / "docs"
    folder.mkdir(exist_ok=True)
    image = make_phantom()
    node = volume_from_image(scene, image, "MediScanPhantom")
    prediction = InProcess().predict(Request(image, device="cpu"))
    add_prediction(scene, prediction, node)
    top, second = sorted(prediction.probabilities, key=lambda label: -prediction.probabilities[label])[:2]
    views = {name: make_view(name, size=(480, 560)) for name in (LEFT, RIGHT)}
    comparisons = {
        "side-by-side": panes_original(scene, node, top, style=Style()),
        "two-findings": panes_findings(scene, node, top, second, style=Style(outline=True, opacity=1.0)),
    }
    for file, panes in comparisons.items():
        for name in show_side_by_side(scene, *panes, opacity=1.0 if file == "two-findings" else 0.5):
            views[name].fit()
        go_to_place(scene)
        for name, text in corner_texts(scene).items():
            annotate(views[name].view.first_renderer(), text)
        pictures = [views[name].picture() for name in (LEFT, RIGHT)]
        assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 0.1
        gap = np.full((len(pictures[0]), 6, 3), 60, np.uint8)
        Image.fromarray(np.hstack([pictures[0], gap, pictures[1]])).save(folder / f"views-{file}.png", optimize=True)
