"""Heat maps: which finding, how it is drawn, and what stands beside what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..prediction.result import Prediction
from ..scene.comparison import is_side_by_side, leave_side_by_side, show_side_by_side, style_side_by_side
from ..scene.panes import panes_findings, panes_original
from ..scene.session import show_heat_map, style_heat_map
from ..scene.style import Style

if TYPE_CHECKING:
    from .app import App
    from .study import Study

ORIGINAL, FINDINGS = "original", "findings"
_STYLES = ("visible", "opacity", "threshold", "colors", "outline", "common_scale")


class Looking:
    """What lies over the image.

    Args:
        app: Whose page.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._drawn = self._style()
        app.state.change(*_STYLES)(app.guarded(self.restyle))
        app.state.change("slice_index")(app.guarded(self.go_to))

    def begin(self, prediction: Prediction) -> None:
        """Show the heat map of the most probable finding, and offer the others."""
        maps = prediction.maps
        ordered = sorted(prediction.findings, key=lambda finding: -finding.probability)
        labels = [finding.label for finding in ordered if maps is not None and finding.label in maps.labels]
        with self._app.state as state:
            state.findings = labels
            state.second_finding = labels[1] if len(labels) > 1 else ""
        if labels:
            self.show(labels[0], jump=True)

    def show(self, finding: str, *, jump: bool = False) -> None:
        """Show the heat map of another finding."""
        study = self._study()
        self._check(finding)
        self._drawn = self._style()
        show_heat_map(self._app.views.scene, study.reference, finding, self._drawn, jump=jump)
        with self._app.state as state:
            state.finding = finding
        self._write_legend()
        if is_side_by_side(self._app.views.scene):
            self.compare(self._app.state.comparison)
        self._app.views.settle()
        self._app.views.draw()

    def restyle(self, **_: Any) -> None:
        """Draw it as the page says now; the browser moves its sliders itself, so that they never jump back."""
        try:
            style = self._style()
        except (UsageError, TypeError, ValueError) as error:
            self._app.state.update(_page_values(self._drawn))
            raise UsageError("A heat map cannot be drawn like that.") from error
        study = self._app.study
        if style == self._drawn or study is None or study.prediction is None:
            return
        self._drawn = style
        style_heat_map(self._app.views.scene, study.reference, style)
        style_side_by_side(self._app.views.scene, style)
        self._write_legend()
        self._app.views.draw()

    def compare(self, comparison: str, second: str | None = None) -> None:
        """Show two views side by side.

        Args:
            comparison: `ORIGINAL` or `FINDINGS`.
            second: Finding of the second heat map.
        """
        study, app = self._study(), self._app
        finding, scene = str(app.state.finding), app.views.scene
        if second is not None:
            self._check(second)
            app.state.second_finding = second
        if comparison == FINDINGS:
            other = str(app.state.second_finding)
            if other == finding:
                other = next((label for label in app.state.findings if label != finding), "")
            self._check(other)
            app.state.second_finding = other
            panes = panes_findings(scene, study.reference, finding, other, style=self._style())
        elif comparison == ORIGINAL:
            panes = panes_original(scene, study.reference, finding, style=self._style())
        else:
            raise UsageError("These cannot be shown side by side.")
        show_side_by_side(scene, *panes, opacity=self._style().opacity if self._style().visible else 0.0)
        with app.state as state:
            state.comparison = comparison
        self._write_legend()
        app.views.settle()
        app.views.fit()

    def leave(self) -> None:
        """Go back to the one view."""
        leave_side_by_side(self._app.views.scene)
        with self._app.state as state:
            state.comparison = ""
        self._write_legend()
        self._app.views.settle()
        self._app.views.fit()

    def go_to(self, **_: Any) -> None:
        """Show the slice that the page says."""
        study, index = self._app.study, self._app.state.slice_index
        if study is None or study.image.shape[0] == 1:
            return
        if not isinstance(index, int) or not 0 <= index < study.image.shape[0]:
            raise UsageError("There is no such slice.")
        if index != self._app.views.slice_index(study.reference):
            self._app.views.go_to(study.reference, index)

    def zoom(self, factor: Any) -> None:
        """Come nearer or go away."""
        self._app.views.zoom(min(0.5, max(-1.0, float(factor))))

    def fit(self) -> None:
        """Show the whole image again."""
        self._app.views.fit()

    def _style(self) -> Style:
        state = self._app.state
        return Style(
            visible=bool(state.visible),
            opacity=float(state.opacity) / 100,
            threshold=float(state.threshold) / 100,
            colors=str(state.colors),
            outline=bool(state.outline),
            common_scale=bool(state.common_scale),
            legend=False,  # it stands under the views, where it hides nothing of the patient
        )

    def _write_legend(self) -> None:
        study, state, style = self._app.study, self._app.state, self._drawn
        maps = None if study is None or study.prediction is None else study.prediction.maps
        shown = [str(state.finding)] + ([str(state.second_finding)] if state.comparison == FINDINGS else [])
        if maps is None or not all(finding in maps.labels for finding in shown):
            return
        scale = "the largest scale of all findings" if style.common_scale else "what maps of a finding usually reach"
        said = [
            f"1 is {scale}.",
            f"{'Lines surround' if style.outline else 'Shown is'} {style.threshold:.2f} and more.",
        ]
        for finding in shown:
            highest = maps.peak(finding)[0] / maps.scale(finding, common=style.common_scale)
            if highest < style.threshold:
                said.append(f"Nothing of {finding} reaches that: its highest is {highest:.2f}.")
        with state:
            state.legend = " ".join(said)

    def _study(self) -> Study:
        study = self._app.study
        if study is None or study.prediction is None:
            raise UsageError("There is no result yet. Run the model first.")
        return study

    def _check(self, finding: str) -> None:
        if finding not in self._app.state.findings:
            raise UsageError("There is no heat map of this finding.")


def _page_values(style: Style) -> dict[str, Any]:
    """A style as the page has it."""
    values = {name: getattr(style, name) for name in _STYLES}
    return {**values, "opacity": round(100 * style.opacity), "threshold": round(100 * style.threshold)}
