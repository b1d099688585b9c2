"""What the model would say if a clinical value were another; what it said stays beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import MediScanError, UsageError
from ..prediction.engine import Step
from ..prediction.result import Prediction
from ..study.fields import FIELDS
from .form import problem_of, texts_of, value_text
from .shown import change_rows

if TYPE_CHECKING:
    from .app import App
    from .study import Study


class Trying:
    """Asks for other values on the same image; its pixels are not sent again, and only the head is computed.

    Args:
        app: Whose page.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._at_work = False
        self._again = False
        app.state.change("tried")(app.guarded(self.choose))

    def begin(self, prediction: Prediction | None) -> None:
        """Start from what was said."""
        with self._app.state as state:
            state.tried = {}
            state.try_rows = [] if prediction is None else change_rows(prediction, None)
            state.try_status = ""

    def choose(self, **_: Any) -> None:
        """Try the values that the page says, text by field; empty for unknown."""
        study, tried = self._app.study, self._app.state.tried
        if study is None or study.prediction is None or not tried:
            self.begin(None if study is None else study.prediction)
            return
        if not isinstance(tried, dict) or not all(
            name in FIELDS and isinstance(text, str) for name, text in tried.items()
        ):
            raise UsageError("There is no such clinical value.")
        problem = next((said for name, text in tried.items() if (said := problem_of(name, text))), "")
        if problem:
            with self._app.state as state:
                state.try_status = problem
            return
        self._again = True
        if not self._at_work:
            self._app.do(self._ask(study))

    async def _ask(self, study: Study) -> None:
        """The newest values, again until nothing newer was chosen meanwhile."""
        self._at_work = True
        try:
            while self._again and self._app.study is study and study.prediction is not None:
                self._again = False
                tried = dict(self._app.state.tried)
                said = study.prediction
                values = {**texts_of(said.clinical.used), **_unlearned(study), **tried}
                with self._app.state as state:
                    state.try_status = "Asking the model…"
                answer = await self._app.asking.predict(self._app.request(study, values, study.model), _ignore)
                if self._app.study is study and study.prediction is said and self._app.state.tried == tried:
                    with self._app.state as state:
                        state.try_rows = change_rows(said, answer.probabilities)
                        state.try_status = "Tried: " + ", ".join(_said(*pair) for pair in tried.items()) + "."
        except MediScanError as error:
            with self._app.state as state:
                state.try_status = str(error)
        finally:
            self._at_work = False


def _unlearned(study: Study) -> dict[str, str]:
    """Values that were given but that the model had not learned: they stay what they were."""
    assert study.prediction is not None
    return {name: study.asked.get(name, "") for name in study.prediction.clinical.unlearned}


def _said(name: str, text: str) -> str:
    shown: Any = value_text(name, None) if not text else f"{text} {FIELDS[name].unit}".strip()
    return f"{FIELDS[name].title} {shown}"


def _ignore(_: Step) -> None:
    return
