"""Slicer's slice views in the browser: one for an image, two side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trame_rca import module as rca_module
from trame_slicer.core import SlicerApp
from trame_slicer.rca_view.rca_view_factory import RemoteSliceViewFactory
from trame_slicer.views import ViewLayoutDefinition, ViewProps, ViewType

from ..scene.comparison import corner_texts, go_to_place, is_side_by_side
from ..scene.corner_text import annotate
from ..scene.current_slice import current_slice
from ..scene.views import LEFT, RIGHT, jump_to

MAIN = "Red"
MOVING_QUALITY, STILL_QUALITY = 75, 95
"""JPEG qualities while something moves and once it stands still."""

_FRAMES_PER_S = 20.0
_LARGEST_PIXELS = 2_000_000
"""Of a view: pictures are drawn by the processor."""


class Views:
    """The scene of one browser and its three views.

    Args:
        server: Of trame.
        on_moved: Called when the views show another slice.

    Attributes:
        scene: vtkMRMLScene.
    """

    def __init__(self, server: Any, on_moved: Callable[[], None]) -> None:
        server.enable_module(rca_module)
        self._slicer = SlicerApp()
        self.scene = self._slicer.scene
        factory = RemoteSliceViewFactory(
            server,
            populate_view_ui_f=None,
            target_fps=_FRAMES_PER_S,
            blur_fps=_FRAMES_PER_S,
            interactive_quality=MOVING_QUALITY,
            rca_encoder="turbo-jpeg",
        )
        self._slicer.view_manager.register_factory(factory)
        self._on_moved = on_moved
        self._views: dict[str, Any] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        for name in (MAIN, LEFT, RIGHT):
            view = self._slicer.view_manager.create_view(
                ViewLayoutDefinition(
                    singleton_tag=name, view_type=ViewType.SLICE_VIEW, properties=ViewProps(orientation="Axial")
                )
            )
            adapter = factory.get_factory_view(name).view_adapter
            adapter.update_quality(MOVING_QUALITY, STILL_QUALITY)
            adapter.max_pixel_count = _LARGEST_PIXELS
            view.interactor().AddObserver("WindowResizeEvent", lambda *_, name=name: self._resized(name))
            view.get_view_node().AddObserver("ModifiedEvent", lambda *_: self._on_moved())
            self._views[name] = view
        self.settle()

    def show(self, reference: Any) -> None:
        """Show an image in the main view, in its own plane if it is of one slice."""
        view = self._views[MAIN]
        node = view.get_view_node()
        node.SetOrientation("Axial")
        if 1 in reference.GetImageData().GetDimensions():
            node.RotateToVolumePlane(reference)
        view.set_background_volume_id(reference.GetID())
        self.fit()

    def empty(self) -> None:
        """Show nothing."""
        for view in self._views.values():
            view.set_foreground_volume_id(None)
            view.set_background_volume_id(None)
        self.settle()

    def settle(self) -> None:
        """Draw the views that are on the page, and only these; write what stands in them."""
        pair = is_side_by_side(self.scene)
        texts = corner_texts(self.scene)
        for name, view in self._views.items():
            annotate(view.first_renderer(), texts.get(name, "") if pair else "")
            view.set_render_blocked((name == MAIN) == pair)

    def fit(self) -> None:
        """Show the whole image again."""
        for name in self._on_page():
            self._fit(name)
        self.draw()

    def zoom(self, factor: float) -> None:
        """Come nearer (above 0) or go away (below 0)."""
        for name in self._on_page():
            self._views[name].zoom(factor)
        self.draw()

    def go_to(self, reference: Any, slice_index: int) -> None:
        """Show another slice of a volume."""
        _, rows, columns = reference.GetImageData().GetDimensions()[::-1]
        jump_to(self.scene, reference, (slice_index, (rows - 1) / 2, (columns - 1) / 2))
        self.draw()

    def slice_index(self, reference: Any) -> int | None:
        """Which slice of an image is shown."""
        return current_slice(self.scene, reference)

    def draw(self) -> None:
        """Draw the views that are on the page anew."""
        for name in self._on_page():
            self._views[name].schedule_render()

    def _on_page(self) -> tuple[str, ...]:
        return (LEFT, RIGHT) if is_side_by_side(self.scene) else (MAIN,)

    def _fit(self, name: str) -> None:
        view = self._views[name]
        before = view.get_slice_value()
        view.fit_view_to_content()
        if name == MAIN:
            view.set_slice_value(before)  # fitting goes to the middle
        else:
            go_to_place(self.scene)

    def _resized(self, name: str) -> None:
        size = self._views[name].render_window().GetSize()
        if self._sizes.get(name) != size:
            self._sizes[name] = size
            self._fit(name)
