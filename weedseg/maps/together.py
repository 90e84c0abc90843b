"""Files that belong together are written together: all of them, or none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyogrio.errors import CRSError, DataLayerError, DataSourceError, FeatureError, FieldError
from rasterio.errors import RasterioError

from weedseg.errors import OutputError

WRITING_FAULTS = (
    *(CRSError, DataLayerError, DataSourceError, FeatureError, FieldError, RasterioError),
    *(OSError, ValueError, RuntimeError),
)
"""What libraries raise when files cannot be written."""


@contextmanager
def written_together(out: Path, what: str) -> Iterator[Path]:
    """Give a hidden folder to write into; rename what is whole into `out` inside the block.

    Args:
        out: Where the files go; made if missing.
        what: What they are, for the message.

    Raises:
        OutputError: The folder cannot be written or the disk is full.
    """
    made: Path | None = None
    try:
        out.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".writing-", dir=out.resolve()))
        yield made
    except WRITING_FAULTS as error:
        reason = " ".join(str(error).split())[:200]
        raise OutputError(
            f"{what} cannot be written to {out}: {reason}",
            "a folder that can be written, with room",
            "free some space or choose another --out",
        ) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
