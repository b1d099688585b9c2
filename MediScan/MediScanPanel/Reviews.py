"""Keeps what a reader says about a prediction: in the scene, and in a file on this computer."""

from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from MediScanLib.errors import UsageError


def addReview(
    volumeNode: Any,
    agree: bool,
    correctedLabel: str | None = None,
    correctedSeverity: float | None = None,
    note: str = "",
    region: Any = None,
) -> tuple[int, Path]:
    """Keep a review of the prediction of an image.

    Args:
        volumeNode: Image that was looked at.
        agree: Whether the reader agrees with the most probable finding.
        correctedLabel: What the reader sees instead; None for a finding that the model does not know.
        correctedSeverity: 0..1 of the model's scale; None where the reader says nothing of it.
        note: Free text.
        region: vtkMRMLMarkupsROINode that marks the finding.

    Returns:
        How many reviews the file holds now, and the file.

    Raises:
        UsageError: There is no prediction, or the review is not acceptable.
        ReviewError: The file cannot be written; the review is in the scene all the same.
    """
    from MediScanLib.report.review import Review
    from MediScanLib.report.reviews import ReviewStore
    from MediScanLib.scene.results import stored_prediction
    from MediScanLib.scene.stored_review import store_review

    prediction = stored_prediction(slicer.mrmlScene, volumeNode) if volumeNode else None
    if prediction is None:
        raise UsageError(_("There is no result to review. Look at the image first."))
    review = Review.of(
        prediction,
        agree=agree,
        corrected_label=correctedLabel,
        corrected_severity=correctedSeverity,
        note=note.strip(),
        region=_boxes(volumeNode, region, prediction) if region is not None else (),
    )
    store_review(slicer.mrmlScene, review.to_json(), volumeNode)
    store = ReviewStore()
    store.add(review)
    return len(store.all()), store.path


def _boxes(volumeNode: Any, region: Any, prediction: Any) -> tuple[Any, ...]:
    """The region as the box around its voxels."""
    import numpy as np

    from MediScanLib.report.review import Box
    from MediScanLib.scene.regions import region_on
    from MediScanLib.scene.volumes import image_from_volume

    marked = region_on(region, volumeNode)
    inside = np.argwhere(marked.inside) + marked.start
    image = image_from_volume(volumeNode)
    corners = [image.to_physical(tuple(corner)) for corner in (inside.min(axis=0), inside.max(axis=0))]
    return (Box.around(corners, prediction.image, name=region.GetName() or ""),)
