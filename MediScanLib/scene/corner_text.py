"""Text at the upper edge of a view, which says what the view shows."""

from __future__ import annotations

from typing import Any

from vtkmodules.vtkRenderingAnnotation import vtkCornerAnnotation

FONT_SIZE = 14
"""That of Slicer's own texts in the corners of slice views."""


def write_corner_text(annotation: Any, text: str) -> None:
    """Write into the annotation of a view; an empty text takes it away.

    Slicer's Data Probe fills the four corners of slice views and empties them again. The upper edge is nobody's.

    Args:
        annotation: vtkCornerAnnotation, in the application `sliceView().cornerAnnotation()`.
        text: What to write.
    """
    annotation.SetText(vtkCornerAnnotation.UpperEdge, text)


def annotate(renderer: Any, text: str) -> Any:
    """Write into a view that has no annotation of its own, such as one that is drawn without a screen.

    Args:
        renderer: vtkRenderer.
        text: What to write; an empty text takes it away.

    Returns:
        The vtkCornerAnnotation, one a renderer.
    """
    props = renderer.GetViewProps()
    annotations = (props.GetItemAsObject(number) for number in range(props.GetNumberOfItems()))
    annotation = next((prop for prop in annotations if prop.IsA("vtkCornerAnnotation")), None)
    if annotation is None:
        annotation = vtkCornerAnnotation()
        annotation.SetMinimumFontSize(FONT_SIZE)
        annotation.SetMaximumFontSize(FONT_SIZE)
        annotation.SetNonlinearFontScaleFactor(1)
        annotation.GetTextProperty().SetFontFamilyToArial()
        annotation.GetTextProperty().ShadowOn()
        annotation.GetTextProperty().SetBackgroundOpacity(0.5)  # black, since bright bones may reach up there
        renderer.AddViewProp(annotation)
    write_corner_text(annotation, text)
    return annotation
