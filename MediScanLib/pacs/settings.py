"""How the node is set up: a YAML file, see docs/pacs.md."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from ..config import InferenceConfig, Integer, Number
from ..network.bundle import user_folder
from .destinations import AeTitle, Destination, FilePath, Part, PlacedError, Seconds, Tls, WebAccess, is_local
from .rules import Rule

MEBIBYTE = 1024**2

Key = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,40}$")]


class ListenSettings(Part):
    """The DICOM node.

    Attributes:
        host: Address to listen on; anything but this machine's own needs `callers`.
        port: TCP port; 0 for a free one.
        ae_title: What this node calls itself; also in what it sends.
        callers: AE titles that may send; all of them where empty.
        tls: Encryption; whoever calls must then show a certificate of `ca_file`.
        max_pdu: Bytes of the largest protocol data unit.
        max_associations: At once.
        idle_s: An association is ended after so long a silence.
    """

    host: str = "127.0.0.1"
    port: Integer = Field(default=11112, ge=0, le=65535)
    ae_title: AeTitle = "MEDISCAN"
    callers: tuple[AeTitle, ...] = ()
    tls: Tls | None = None
    max_pdu: Integer = Field(default=128 * 1024, ge=4096, le=16 * MEBIBYTE)
    max_associations: Integer = Field(default=10, ge=1, le=1000)
    idle_s: Seconds = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> ListenSettings:
        if not is_local(self.host) and not self.callers:
            raise PlacedError(f"other machines could reach {self.host}: name in callers who may send", "host")
        if self.tls is not None and self.tls.certificate is None:
            raise PlacedError("certificate and key are needed", "tls")
        return self


class Source(WebAccess):
    """An archive that is asked for new studies by QIDO-RS.

    Attributes:
        every_s: Time between two looks.
        modalities: Studies with images of these only; all where empty.
        days: Studies whose date lies so many days back at most, or in the future; all where None. Dates come from
            the clocks of the devices: what is new is known from what was fetched, never from a date.
        page: Studies in one answer.
    """

    every_s: Seconds = Field(default=30.0, gt=0)
    modalities: tuple[str, ...] = ()
    days: Integer | None = Field(default=None, ge=0, le=36_500)
    page: Integer = Field(default=200, ge=1, le=10_000)


class StudySettings(Part):
    """When a study is complete.

    Attributes:
        quiet_s: Nothing more has come for so long, and its association was released.
        broken_s: The same where the association broke: time to send the rest.
        open_s: The same while the association stays open.
    """

    quiet_s: Seconds = Field(default=10.0)
    broken_s: Seconds = Field(default=120.0)
    open_s: Seconds = Field(default=300.0)


class PredictSettings(Part):
    """How predictions are made.

    Attributes:
        device: See `resolve_device`.
        workers: Child processes, each with the models.
        threads: Of each; the machine's cores shared out where None.
        inference: As in config.yaml.
        time_limit_s: A child that takes longer for one image or volume is ended.
        reading_mb: Memory that decoding one image or volume may take.
        attempts: How often one is begun that ends its child, or finds no room on the disk.
    """

    device: str = "auto"
    workers: Integer = Field(default=2, ge=1, le=64)
    threads: Integer | None = Field(default=None, ge=1, le=1024)
    inference: InferenceConfig = InferenceConfig()
    time_limit_s: Seconds = Field(default=900.0, gt=0)
    reading_mb: Integer = Field(default=4096, ge=64)
    attempts: Integer = Field(default=4, ge=1)

    @property
    def threads_each(self) -> int:
        """Threads of each worker."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.workers)


class RetrySettings(Part):
    """How failed deliveries are tried again: after `first_s`, then twice as long each time, with some chance in it.

    Attributes:
        first_s: First wait.
        most_s: Longest wait.
        attempts: After so many it is a dead letter.
    """

    first_s: Seconds = Field(default=5.0, gt=0)
    most_s: Seconds = Field(default=3600.0, gt=0)
    attempts: Integer = Field(default=20, ge=1)


class KeepSettings(Part):
    """What is kept for how long.

    Attributes:
        days: Images and results, after the last result of the study was delivered.
        dead_days: The same of a study with dead letters.
        ledger_days: Which images came and which results were sent; what is older could be predicted and sent again.
    """

    days: Number = Field(default=1.0, ge=0)
    dead_days: Number = Field(default=30.0, ge=0)
    ledger_days: Number = Field(default=400.0, ge=1)


class LimitSettings(Part):
    """What is refused.

    Attributes:
        instance_mb: Largest object.
        instances: Objects of one study.
        free_mb: Room that stays free on the disk.
    """

    instance_mb: Number = Field(default=1024, gt=0)
    instances: Integer = Field(default=20_000, ge=1)
    free_mb: Number = Field(default=512, ge=0)


class PacsSettings(Part):
    """All of the file.

    Attributes:
        folder: Where the queue and the images lie; for this user only.
        listen: The DICOM node, for `mediscan listen`.
        sources: DICOMweb archives, for `mediscan poll`.
        study: When a study is complete.
        predict: How predictions are made.
        retry: How deliveries are tried again.
        keep: What is kept for how long.
        limits: What is refused.
        destinations: Where results can go.
        rules: Which images go to which model.
    """

    folder: FilePath = Field(default_factory=lambda: user_folder() / "Pacs")
    listen: ListenSettings = ListenSettings()
    sources: dict[Key, Source] = Field(default_factory=dict)
    study: StudySettings = StudySettings()
    predict: PredictSettings = PredictSettings()
    retry: RetrySettings = RetrySettings()
    keep: KeepSettings = KeepSettings()
    limits: LimitSettings = LimitSettings()
    destinations: dict[Key, Destination]
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> PacsSettings:
        names: set[str] = set()
        for number, rule in enumerate(self.rules):
            if rule.name in names:
                raise PlacedError(
                    f"rule {rule.name!r} stands there twice: give each a name of its own", "rules", number, "name"
                )
            names.add(rule.name)
            for destination in rule.send_to:
                if destination not in self.destinations:
                    known = ", ".join(self.destinations) or "none"
                    raise PlacedError(
                        f"rule {rule.name!r} sends to {destination!r}, which is no destination ({known})",
                        *("rules", number, "send_to"),
                    )
            for source in rule.when.source or ():
                if not any(character in source for character in "*?") and source not in self.sources:
                    raise PlacedError(
                        f"rule {rule.name!r} waits for source {source!r}, which is none of the sources",
                        *("rules", number, "when", "source"),
                    )
        return self
