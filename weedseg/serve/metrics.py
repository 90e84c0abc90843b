"""What Prometheus reads at ``/metrics``; one registry per app, so that several can live at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """All figures of the service."""

    def __init__(self) -> None:
        """Make the registry."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "weedseg_requests", "Answered requests", ["endpoint", "code"], registry=self.registry
        )
        self.duration = Histogram(
            "weedseg_request_duration_seconds",
            "Time from the first byte of a request to its answer",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "weedseg_stage_duration_seconds",
            "Time of one stage of one photo",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "weedseg_queue_depth", "Accepted photos that wait", registry=self.registry
        )
        self.inflight = Gauge(
            "weedseg_inflight", "Requests that are being answered", registry=self.registry
        )
        self.model_info = Gauge(
            "weedseg_model_info",
            "The default model",
            ["model", "version", "provider", "precision"],
            registry=self.registry,
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage of one photo.

        Args:
            name: decode, infer, post or encode.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages.labels(name).observe(time.perf_counter() - start)

    def watch_jobs(
        self, count: Callable[[], Mapping[str, int]], num_waiting: Callable[[], int]
    ) -> None:
        """Ask for the jobs whenever the figures are read: they may be another process's.

        Args:
            count: Returns status -> number of jobs.
            num_waiting: Returns the number of photos and other steps that are not done.
        """
        self.registry.register(_JobCollector(count, num_waiting))

    def text(self) -> bytes:
        """Write all figures in the text format of Prometheus."""
        return generate_latest(self.registry)


class _JobCollector(Collector):
    def __init__(
        self, count: Callable[[], Mapping[str, int]], num_waiting: Callable[[], int]
    ) -> None:
        self._count = count
        self._num_waiting = num_waiting

    def collect(self) -> Iterator[GaugeMetricFamily]:
        jobs, waiting = self.describe()
        for status, number in self._count().items():
            jobs.add_metric([status], number)
        waiting.add_metric([], self._num_waiting())
        yield from (jobs, waiting)

    def describe(self) -> list[GaugeMetricFamily]:
        return [
            GaugeMetricFamily("weedseg_jobs", "Jobs by status", labels=["status"]),
            GaugeMetricFamily(
                "weedseg_jobs_waiting", "Photos and other steps of jobs that are not done"
            ),
        ]
