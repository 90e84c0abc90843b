"""Every error that weedseg raises on purpose.

    WeedsegError
    |-- ConfigError                a recipe, option or command-line value is wrong
    |-- FieldDataError             something in the farm folder is wrong
    |   |-- ImageError             a photo cannot be read
    |   |-- MaskError              a mask cannot be read or does not fit its photo
    |   |-- SplitError             photos cannot be split honestly
    |   `-- GeoreferenceError      a mosaic or photo does not say where it lies on the ground
    |-- TileError                  a tile plan is impossible
    |-- TrainingError              training cannot go on
    |   |-- NonFiniteLossError     the loss is NaN or infinite
    |   `-- CheckpointError        a checkpoint is missing, damaged or does not fit
    |-- OutputError                a result cannot be written
    |-- PrescriptionError          the model is not known well enough to spray by it
    |-- ExportError                a model cannot be exported
    |   `-- ParityError            the exported model differs from the trained one
    |-- ModelFileError             a model file is not one that weedseg may run
    |-- RuntimeUnavailableError    a package or device that is needed is not there
    `-- ServiceError               the service refuses a request or cannot be reached

A message has three facts in one sentence: what was found, what was expected, what to do.
The command line prints it on one line and exits with ``exit_code``; the service answers
with ``http_status``.
"""

from __future__ import annotations

from typing import Any, ClassVar


class WeedsegError(Exception):
    """Any error that weedseg raises on purpose; carries its three facts as attributes."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, found: str, expected: str, remedy: str) -> None:
        """Keep the facts.

        Args:
            found: What was found, without a full stop.
            expected: What was expected instead.
            remedy: What the person should do.
        """
        super().__init__(f"{found}; expected {expected}; {remedy}")
        self.found = found
        self.expected = expected
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[WeedsegError], tuple[Any, ...]]:
        """Pickle by the three facts, so that errors cross process borders."""
        return type(self), (self.found, self.expected, self.remedy)


class ConfigError(WeedsegError):
    """A recipe, option or command-line value is wrong."""

    exit_code = 2
    http_status = 422


class FieldDataError(WeedsegError):
    """Something in the farm folder is wrong."""

    exit_code = 3
    http_status = 422


class ImageError(FieldDataError):
    """A photo cannot be read."""

    http_status = 415


class MaskError(FieldDataError):
    """A mask cannot be read or does not fit its photo."""


class SplitError(FieldDataError):
    """Photos cannot be split honestly."""


class GeoreferenceError(FieldDataError):
    """A mosaic or photo does not say where it lies on the ground, or what its pixels show."""


class TileError(WeedsegError):
    """A tile plan is impossible."""

    exit_code = 4
    http_status = 422


class TrainingError(WeedsegError):
    """Training cannot go on."""

    exit_code = 5


class NonFiniteLossError(TrainingError):
    """The loss is NaN or infinite."""


class CheckpointError(TrainingError):
    """A checkpoint is missing, damaged or does not fit."""


class OutputError(WeedsegError):
    """A result cannot be written."""

    exit_code = 6
    http_status = 507


class PrescriptionError(WeedsegError):
    """The model is not known well enough to spray by it."""

    exit_code = 10
    http_status = 422


class ExportError(WeedsegError):
    """A model cannot be exported."""

    exit_code = 7


class ParityError(ExportError):
    """The exported model differs from the trained one."""


class ModelFileError(WeedsegError):
    """A model file is not one that weedseg may run."""

    exit_code = 8
    http_status = 422


class RuntimeUnavailableError(WeedsegError):
    """A package or device that is needed is not there."""

    exit_code = 9
    http_status = 503


class ServiceError(WeedsegError):
    """The service refuses a request or cannot be reached."""

    def __init__(self, found: str, expected: str, remedy: str, status: int = 0) -> None:
        """Keep the facts and the HTTP status.

        Args:
            found: What was found, without a full stop.
            expected: What was expected instead.
            remedy: What the person should do.
            status: HTTP status of the answer; 0 without one.
        """
        super().__init__(found, expected, remedy)
        self.status = status

    def __reduce__(self) -> tuple[type[WeedsegError], tuple[Any, ...]]:
        """Pickle by the facts and the status."""
        return type(self), (self.found, self.expected, self.remedy, self.status)
