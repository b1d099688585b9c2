"""Which images go to which model, where its results go, and what is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, model_validator

from ..network.bundle import DEFAULT_BUNDLE
from .destinations import Part, PlacedError, checked_path
from .facts import Facts


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _model(text: str) -> str:
    """A name as it is; a path checked."""
    return text if Path(text).name == text else str(checked_path(text))


def _upper(value: Any) -> Any:
    several = _several(value)
    if not isinstance(several, list | tuple):
        return value
    return [item.upper() if isinstance(item, str) else item for item in several]


Words = Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]
Codes = Annotated[tuple[str, ...], BeforeValidator(_upper), Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[\w .-]{1,60}$")]


class When(Part):
    """What an image must be like. All that is given must fit; of a list one is enough, and * and ? stand for anything.

    Attributes:
        modality: DICOM modality.
        body_part: Body Part Examined.
        view: View Position.
        calling_ae: AE title of who sent it.
        source: Name of the DICOMweb source that it was fetched from.
        study_description: Study Description; upper and lower case are the same.
        series_description: Series Description.
        manufacturer: Manufacturer of the device.
    """

    modality: Codes | None = None
    body_part: Codes | None = None
    view: Codes | None = None
    calling_ae: Words | None = None
    source: Words | None = None
    study_description: Codes | None = None
    series_description: Codes | None = None
    manufacturer: Codes | None = None

    def fits(self, facts: Facts, origin: str) -> bool:
        """Whether an image is like that.

        Args:
            facts: Of the image.
            origin: "ae:" or "web:" and the name of where it came from.
        """
        kind, _, name = origin.partition(":")
        values: dict[str, str | None] = {
            **{key: getattr(facts, key) for key in When.model_fields if hasattr(facts, key)},
            "calling_ae": name if kind == "ae" else None,  # which not even * fits
            "source": name if kind == "web" else None,
        }
        for key, value in values.items():
            patterns = getattr(self, key)
            if patterns is not None and (value is None or not any(_alike(value, pattern) for pattern in patterns)):
                return False
        return True


def _alike(value: str, pattern: str) -> bool:
    return fnmatchcase(value, pattern.replace("[", "[[]"))  # a bracket in a description is nothing special


ResultKind = Literal["sr", "seg", "pm", "sc"]


class Rule(Part):
    """What is done with images that fit. The first rule that fits counts; what fits none is left alone.

    Attributes:
        name: For people; stands in the log.
        when: What they must be like; everything fits where it is left out.
        leave_alone: Nothing is done with them.
        secondary_captures: Whether Secondary Captures fit at all, as scanned films are sent.
        model: Name or folder of a bundle.
        results: Kinds of DICOM objects, see `report.dicom.writing.KINDS`.
        send_to: Names of destinations.
    """

    name: Name
    when: When = When()
    leave_alone: StrictBool = False
    secondary_captures: StrictBool = False
    model: Annotated[str, Field(min_length=1), AfterValidator(_model)] = DEFAULT_BUNDLE
    results: Annotated[tuple[ResultKind, ...], BeforeValidator(_several), Field(min_length=1)] = (
        "sr",
        "seg",
        "pm",
        "sc",
    )
    send_to: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Rule:
        if self.leave_alone and (self.send_to or {"model", "results"} & self.model_fields_set):
            raise ValueError(f"rule {self.name!r} leaves images alone: then it has no model, results or send_to")
        if not self.leave_alone and not self.send_to:
            raise ValueError(f"rule {self.name!r} sends its results nowhere: name a destination in send_to")
        for key, given in (("send_to", self.send_to), ("results", self.results)):
            if len(set(given)) != len(given):
                raise PlacedError(f"rule {self.name!r} names something twice in {key}", key)
        return self


def matching_rule(rules: Sequence[Rule], facts: Facts, origin: str) -> Rule | None:
    """The first rule that fits an image; None where none does, or the one that fits leaves it alone."""
    for rule in rules:
        if facts.is_secondary_capture and not (rule.secondary_captures or rule.leave_alone):
            continue
        if rule.when.fits(facts, origin):
            return None if rule.leave_alone else rule
    return None
