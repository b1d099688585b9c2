"""What a reader says of a prediction; kept where the REST server keeps reviews."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..prediction.result import Prediction
from ..report.review import LONGEST_NOTE, Review
from ..report.reviews import ReviewStore

if TYPE_CHECKING:
    from .app import App


class Reviewing:
    """Agree or disagree, with the right finding, a severity and a note.

    Args:
        app: Whose page.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def begin(self, prediction: Prediction | None) -> None:
        """Ask about another prediction."""
        with self._app.state as state:
            state.review_status = ""
            state.review_number += 1  # an empty form

    def save(self, said: Any) -> None:
        """Keep a review.

        Args:
            said: agree, label, severity in percent (empty for none) and note, as the browser says them.
        """
        study = self._app.study
        if study is None or study.prediction is None:
            raise UsageError("There is no result to review. Run the model first.")
        answer = said.get("agree")
        if answer not in ("yes", "no"):
            raise UsageError("Say first whether you agree.")
        severity = str(said.get("severity") or "")
        review = Review.of(
            study.prediction,
            agree=answer == "yes",
            corrected_label=(str(said.get("label") or "") or None) if answer == "no" else None,
            corrected_severity=None if not severity else float(severity) / 100,
            note=str(said.get("note") or "").strip()[: LONGEST_NOTE + 1],
            reader=self._app.needed_settings.name if self._app.needed_settings.signed_in else "",
        )
        self._app.do(self._add(review))

    async def _add(self, review: Review) -> None:
        store = ReviewStore(self._app.needed_settings.reviews_file)
        number = await asyncio.to_thread(store.add, review)
        self._app.tell("review.added", {"review": number})
        with self._app.state as state:
            state.review_status = f"Saved as review {number}. Thank you."
