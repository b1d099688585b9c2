"""Figures for Prometheus. With several worker processes they are summed over all of them."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""Variable that names the folder in which worker processes share their figures; read when prometheus_client loads."""

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The figures of one server process."""

    def __init__(self) -> None:
        shared = MULTIPROCESS in os.environ
        # values of several processes lie in files and are collected when asked for
        self._own = CollectorRegistry()
        registry = self._own
        self._shared = shared
        self.requests = Counter(
            "mediscan_requests", "Requests that were answered.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "mediscan_request_seconds", "From arrival to answer.", ["route"], buckets=_SECONDS, registry=registry
        )
        self.predictions = Counter(
            "mediscan_predictions", "Studies that were predicted.", ["model", "outcome"], registry=registry
        )
        self.batch = Histogram(
            "mediscan_batch_size",
            "Images that went through the network together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.waiting = Gauge(
            "mediscan_waiting", "Studies that wait.", ["lane"], registry=registry, multiprocess_mode="livesum"
        )
        self.held = Gauge(
            "mediscan_held", "Requests for predictions in the house.", registry=registry, multiprocess_mode="livesum"
        )
        self.jobs = Gauge(
            "mediscan_jobs", "Jobs by state.", ["state"], registry=registry, multiprocess_mode="mostrecent"
        )
        self.refused = Counter("mediscan_refused", "Requests that were refused.", ["code"], registry=registry)
        self.decoding = Histogram(
            "mediscan_decoding_seconds", "Decoding of uploads.", buckets=_SECONDS, registry=registry
        )

    def text(self) -> bytes:
        """In Prometheus' own format."""
        if not self._shared:
            return generate_latest(self._own)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return generate_latest(registry)
