"""What one browser can do: choose a study, say what is known of the patient, run, and look."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import CancelledError, MediScanError, UsageError
from ..notice import RESEARCH_USE_NOTICE
from ..prediction.colormaps import COLOR_MAPS
from ..prediction.engine import Step
from ..prediction.exchange import Request
from ..prediction.result import Prediction
from ..scene.results import remove_results, summary_lines
from ..scene.session import add_prediction
from ..scene.volumes import volume_from_image
from ..server.reader_pool import ReaderPool
from ..study.fields import FIELDS
from ..study.image import MedicalImage
from ..study.phantom import make_phantom
from .asking import Asking, LocalClient
from .colors import ramp
from .form import field_rows, is_unknown, problem_of, record_of, stated_values, texts_of
from .looking import Looking
from .reviewing import Reviewing
from .settings import UserSettings
from .shown import shown
from .study import Study
from .trying import Trying
from .views import Views

STATIC = Path(__file__).with_name("static")
SAMPLES = {
    "phantom": ("Phantom with an opacity", 0.5),
    "phantom-clear": ("Phantom without one", 0.0),
}

_LONGEST_LIST = 12
"""Of warnings; the rest is counted."""


class App:
    """Everything behind one browser's page.

    Args:
        server: Of trame.
        tell: Writes into the audit log.

    Attributes:
        settings: Whose page it is; None before it was given to anybody.
        study: What is looked at; None before a study was chosen.
    """

    def __init__(self, server: Any, tell: Callable[[str, dict[str, Any]], None]) -> None:
        self.server, self.state, self.tell = server, server.state, tell
        self.settings: UserSettings | None = None
        self.study: Study | None = None
        self.busy = False
        self._asking: Asking | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._fill_state()
        server.enable_module({"serve": {"__mediscan": str(STATIC)}})
        self.views = Views(server, self._on_moved)
        self.looking = Looking(self)
        self.trying = Trying(self)
        self.reviewing = Reviewing(self)
        trigger = server.controller.trigger
        for name in ("enter", "unknown", "sample", "run", "cancel", "forget"):
            trigger(name)(self.answering(getattr(self, name)))
        for name in ("show", "zoom", "fit", "compare", "leave"):
            trigger(name)(self.answering(getattr(self.looking, name)))
        trigger("review")(self.answering(self.reviewing.save))
        self.state.trame__template_main = (STATIC / "page.html").read_text(encoding="utf-8")

    @property
    def needed_settings(self) -> UserSettings:
        """The settings, once somebody is here."""
        assert self.settings is not None
        return self.settings

    @property
    def asking(self) -> Asking:
        """The way to the REST server."""
        assert self._asking is not None
        return self._asking

    def begin(self, settings: UserSettings) -> None:
        """Somebody came.

        Args:
            settings: Who, and what they may do.
        """
        self.settings = settings
        self._asking = Asking(LocalClient(settings.server_url, settings.token, settings.certificate))
        with self.state as state:
            state.user_name = settings.name if settings.signed_in else ""
        self.do(self._look_around())

    def do(self, doing: Awaitable[None]) -> None:
        """Do something that takes time, and show its problem if it has one."""

        async def done() -> None:
            with self.problems_shown():
                await doing

        task = asyncio.ensure_future(done())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def say_problem(self, text: str) -> None:
        """Show what went wrong."""
        with self.state as state:
            state.problem = text

    @contextmanager
    def problems_shown(self) -> Iterator[None]:
        """Errors within go to the page; those that nobody foresaw without their own words."""
        try:
            yield
        except CancelledError:
            self._say_status("Cancelled.")
        except MediScanError as error:
            self.say_problem(str(error))
        except (TypeError, ValueError, KeyError, IndexError, RuntimeError, OSError, MemoryError) as error:
            self.say_problem(
                f"Something went wrong inside ({type(error).__name__}). Try again, or open the page anew."
            )

    async def open_upload(self, folder: Path, names: list[str]) -> None:
        """Show what was uploaded.

        Args:
            folder: Holds the files as `files/00001`...
            names: The browser's names for them.

        Raises:
            MediScanError: It cannot be read, or a run is under way.
        """
        self._check_idle()
        settings = self.needed_settings
        with self._working("Reading the image"):
            readers = ReaderPool(1, settings.reading_memory_bytes, settings.reading_time_s, settings.max_voxels)
            try:
                file, name = ("00001", names[0]) if len(names) == 1 else (None, "the upload")
                image = await readers.read(folder, file, None, name)
            finally:
                await readers.close()
                await asyncio.to_thread(shutil.rmtree, folder / "files", True)
            self._open(image)

    def sample(self, name: str) -> None:
        """Show one of `SAMPLES`."""
        self._check_idle()
        if name not in SAMPLES:
            raise UsageError("There is no such sample.")
        title, opacity = SAMPLES[name]
        self._open(replace(make_phantom(opacity=opacity), source=title))

    def enter(self, name: str, text: str) -> None:
        """A clinical value was entered; empty for unknown."""
        if name not in FIELDS or not isinstance(text, str):
            return
        with self.state as state:
            state.values = {**state.values, name: "" if is_unknown(text) else text.strip()}
            state.value_problems = {**state.value_problems, name: problem_of(name, text)}
        self._check_outdated()

    def unknown(self) -> None:
        """Make every clinical value unknown."""
        with self.state as state:
            state.values, state.value_problems = texts_of({}), {}
        self._check_outdated()

    def run(self) -> None:
        """Ask the model."""
        self._check_idle()
        study = self._needed_study()
        values = dict(self.state.values)
        bad = next((name for name in FIELDS if self.state.value_problems.get(name)), None)
        if bad is not None:
            raise UsageError(
                f"{FIELDS[bad].title}: {self.state.value_problems[bad]} Correct it, or mark it as unknown."
            )
        request = self.request(study, values, str(self.state.model))
        self.do(self._run(study, request, values))

    def cancel(self) -> None:
        """Stop the run."""
        self.asking.cancel()

    def forget(self) -> None:
        """Put the study away, and everything that was said of it."""
        self._check_idle()
        self._close_study()
        self._say_status("")

    def request(self, study: Study, values: dict[str, str], model: str) -> Request:
        """What the server is asked.

        Args:
            study: Of which.
            values: Text by clinical field; empty for unknown, also where the image's header says something.
            model: Name of the bundle.
        """
        image = replace(study.image, prefill={})
        record = record_of(values, study.stated)
        return Request(image=image, record=record, model=model)

    def to_export(self) -> tuple[MedicalImage | None, Prediction | None, str]:
        """Image, prediction and the finding that is shown."""
        study = self.study
        return (None, None, "") if study is None else (study.image, study.prediction, str(self.state.finding))

    def guarded(self, function: Callable[..., None]) -> Callable[..., None]:
        """A function that the browser may call with whatever it likes."""

        def called(*arguments: Any, **named: Any) -> None:
            with self.problems_shown():
                function(*arguments, **named)

        return called

    def answering(self, function: Callable[..., None]) -> Callable[..., None]:
        """The same for a button: what was wrong before is forgotten."""

        def called(*arguments: Any) -> None:
            self.say_problem("")
            self.guarded(function)(*arguments)

        return called

    def _fill_state(self) -> None:
        self.state.update(
            {
                "notice": RESEARCH_USE_NOTICE,
                "user_name": "",
                "samples": [{"name": name, "title": title} for name, (title, _) in SAMPLES.items()],
                "models": [],
                "model": "",
                "fields": field_rows(),
                "values": texts_of({}),
                "value_problems": {},
                "stated": {},
                "image": None,
                "busy": "",
                "progress": -1,
                "running": False,
                "status": "",
                "problem": "",
                "result": None,
                "outdated": False,
                "finding": "",
                "findings": [],
                "visible": True,
                "opacity": 50,
                "threshold": 25,
                "colors": COLOR_MAPS[0],
                "color_maps": list(COLOR_MAPS),
                "ramps": {name: ramp(name) for name in COLOR_MAPS},
                "legend": "",
                "outline": False,
                "common_scale": False,
                "slices": 1,
                "slice_index": 0,
                "comparison": "",
                "second_finding": "",
                "try_field": "age_years",
                "tried": {},
                "try_rows": [],
                "try_status": "",
                "review_status": "",
                "review_number": 0,
                "trame__title": "MediScan",
                "trame__template_error": "<main class='lost'></main>",
            }
        )

    async def _look_around(self) -> None:
        info = await self.asking.info()
        with self.state as state:
            state.models = [{"name": model.name, "title": model.title or model.name} for model in info.models]
            state.model = info.models[0].name

    async def _run(self, study: Study, request: Request, values: dict[str, str]) -> None:
        with self._working("Waiting"):
            self.state.running = True
            prediction = await self.asking.predict(request, self._on_step)
            self._on_prediction(study, prediction, values, request.model)

    def _on_prediction(self, study: Study, prediction: Prediction, values: dict[str, str], model: str) -> None:
        if self.study is not study:
            return
        self.looking.leave()
        study.prediction, study.asked, study.model = prediction, values, model
        remove_results(self.views.scene, study.reference)
        add_prediction(self.views.scene, prediction, study.reference)
        with self.state as state:
            state.result = shown(prediction, summary_lines(prediction))
            state.outdated = False
        self.looking.begin(prediction)
        self.trying.begin(prediction)
        self.reviewing.begin(prediction)
        self._say_status(f"Done: {state.result['headline']}")

    def _open(self, image: MedicalImage) -> None:
        self._close_study()
        reference = volume_from_image(self.views.scene, image, "image")
        stated = stated_values(image.prefill)
        self.study = study = Study(image, reference, stated)
        self.views.show(reference)
        warnings = list(image.warnings)
        left = len(warnings) - _LONGEST_LIST
        with self.state as state:
            state.image = {
                "name": image.source,
                "facts": study.facts,
                "warnings": warnings[:_LONGEST_LIST] + ([f"And {left} more."] if left > 0 else []),
            }
            state.stated = texts_of(stated)
            state.values, state.value_problems = texts_of(stated), {}
            state.slices = image.shape[0]
            state.slice_index = self.views.slice_index(reference) or 0
        self._say_status("The image is shown.")

    def _close_study(self) -> None:
        self.looking.leave()
        scene = self.views.scene
        if self.study is not None:
            remove_results(scene, self.study.reference)
            self.views.empty()
            scene.RemoveNode(self.study.reference)
            self.study = None
        with self.state as state:
            state.image = state.result = None
            state.finding, state.findings = "", []
            state.values, state.value_problems, state.stated = texts_of({}), {}, {}
            state.problem, state.outdated, state.slices = "", False, 1
        self.trying.begin(None)
        self.reviewing.begin(None)

    @contextmanager
    def _working(self, what: str) -> Iterator[None]:
        self.busy = True
        with self.state as state:
            state.busy, state.progress, state.problem, state.status = what, -1, "", ""
        try:
            yield
        finally:
            self.busy = False
            with self.state as state:
                state.busy, state.progress, state.running = "", -1, False

    def _on_step(self, step: Step) -> None:
        many = step.total > 1
        text = f"{step.stage.capitalize()}: {step.done} of {step.total}" if many else step.stage.capitalize()
        if step.stage == "sending the image":  # bytes are no steps that people count
            text = step.stage.capitalize()
        with self.state as state:
            state.busy, state.progress = text, round(100 * step.done / step.total) if many else -1

    def _on_moved(self) -> None:
        study = self.study
        if study is None or study.image.shape[0] == 1:
            return
        index = self.views.slice_index(study.reference)
        if index is not None and index != self.state.slice_index:
            with self.state as state:
                state.slice_index = index

    def _check_outdated(self) -> None:
        study = self.study
        with self.state as state:
            state.outdated = bool(study and study.prediction and study.asked != state.values)

    def _check_idle(self) -> None:
        if self.busy:
            raise UsageError("The model is at work. Wait until it is done, or cancel it.")

    def _needed_study(self) -> Study:
        if self.study is None:
            raise UsageError("There is no image. Upload one, or choose a sample.")
        return self.study

    def _say_status(self, text: str) -> None:
        with self.state as state:
            state.status = text
