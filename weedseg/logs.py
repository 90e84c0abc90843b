"""Logging set-up; called by the command line and the service only."""

from __future__ import annotations

import logging
import sys


def set_up_logging(verbose: bool = False) -> None:
    """Send weedseg's log lines to standard error.

    Args:
        verbose: Show debug lines too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname).1s %(message)s"))
    logger = logging.getLogger("weedseg")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
