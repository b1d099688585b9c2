"""Two views side by side in the application."""

from typing import Any

import slicer
from slicer.i18n import tr as _

from .CompareSection import FINDINGS, IMAGE_ONLY, METHODS, MODELS, PRIOR, REGION


def showComparison(
    comparison: str,
    volumeNode: Any,
    finding: str,
    otherFinding: str,
    slot: str,
    priorVolume: Any,
    region: Any,
    style: Any,
) -> None:
    """Show two things in two linked views of their own.

    Args:
        comparison: One of `CompareSection.COMPARISONS`.
        volumeNode: Image with results.
        finding: Finding of the first heat map.
        otherFinding: Finding of the second, where two findings are compared.
        slot: Where the second result of the image stands, where two results are compared.
        priorVolume: Earlier image with results, where two times are compared.
        region: What a reader marked, where reader and model are compared.
        style: How heat maps are drawn, a `scene.style.Style`.

    Raises:
        MediScanError: What is to be compared is not there.
    """
    from MediScanLib.scene import panes
    from MediScanLib.scene.comparison import corner_texts, go_to_place, show_side_by_side

    scene = slicer.mrmlScene
    if comparison == FINDINGS:
        pair = panes.panes_findings(scene, volumeNode, finding, otherFinding, style=style)
    elif comparison == MODELS:
        pair = panes.panes_models(scene, volumeNode, finding, slot, style=style)
    elif comparison == METHODS:
        pair = panes.panes_methods(scene, volumeNode, finding, slot, style=style)
    elif comparison == IMAGE_ONLY:
        pair = panes.panes_image_only(scene, volumeNode, finding, slot, style=style)
    elif comparison == PRIOR:
        pair = panes.panes_prior(scene, volumeNode, priorVolume, finding, style=style)
    elif comparison == REGION:
        pair = panes.panes_region(scene, volumeNode, finding, region, style=style)
    else:
        pair = panes.panes_original(scene, volumeNode, finding, style=style)
    changed = show_side_by_side(scene, *pair, opacity=style.opacity)
    layoutManager = slicer.app.layoutManager()
    if layoutManager is None:
        return
    slicer.app.processEvents()  # the views get their size
    for name in changed:
        layoutManager.sliceWidget(name).sliceLogic().FitSliceToBackground()
    go_to_place(scene)
    _writeTexts(corner_texts(scene))


def leaveComparison() -> None:
    """Go back to the layout that was there before."""
    from MediScanLib.scene.comparison import corner_texts, leave_side_by_side

    leave_side_by_side(slicer.mrmlScene)
    if slicer.app.layoutManager() is not None:
        _writeTexts(dict.fromkeys(corner_texts(slicer.mrmlScene), ""))


def regionFigures(volumeNode: Any, finding: str, region: Any, threshold: float, common: bool = False) -> str:
    """How a finding's heat map fits a reader's region, in words; see `MediScanLogic.regionFigures`."""
    from MediScanLib.scene.regions import compare_with_region

    found = compare_with_region(slicer.mrmlScene, volumeNode, finding, region, threshold, common=common)
    return "\n".join(
        [
            _("The hottest point lies inside the region.")
            if found.pointing
            else _("The hottest point lies outside the region."),
            _("Overlap with the heat above {threshold:.2f} (IoU): {overlap:.2f}; by chance {chance:.2f}.").format(
                threshold=threshold, overlap=found.overlap, chance=found.chance_overlap
            ),
            _("Heat inside the region: {mass:.0f} %; by chance {area:.0f} %.").format(
                mass=100 * found.mass, area=100 * found.area
            ),
        ]
    )


def _writeTexts(texts: dict[str, str]) -> None:
    from MediScanLib.scene.corner_text import write_corner_text

    for name, text in texts.items():
        widget = slicer.app.layoutManager().sliceWidget(name)
        if widget is not None:
            write_corner_text(widget.sliceView().cornerAnnotation(), text)
            widget.sliceView().scheduleRender()
