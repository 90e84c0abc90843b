"""From a finished map to what a sprayer does: worked out for every question, nothing is kept."""

from __future__ import annotations

import io
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Response

from weedseg.errors import ConfigError, PrescriptionError
from weedseg.serve.auth import RESPONSES
from weedseg.serve.job_schemas import Link, PrescriptionResults, PrescriptionWanted
from weedseg.serve.jobs import RESULTS
from weedseg.serve.problems import Problem, busy, not_found, problem_responses
from weedseg.serve.routes.jobs import JobId, Owner, Work, finished_job

if TYPE_CHECKING:
    from weedseg.maps.prescription import Prescription

router = APIRouter(tags=["jobs"])

FILES_NAME = "prescription.zip"
_WAIT_S = 2.0
"""Then 503: whoever waits holds one of the threads that answer all other requests."""
_one_at_a_time = threading.Lock()
_ANSWERS = {**RESPONSES, **problem_responses(404, 409, 422, 503)}


Wanted = Annotated[PrescriptionWanted, Query()]


@router.get("/jobs/{job_id}/results/map/prescription", responses=_ANSWERS)
def show_prescription(
    services: Work, who: Owner, job_id: JobId, wanted: Wanted
) -> PrescriptionResults:
    """Say which part of the field is treated from a weed cover on, and what that saves."""
    finished_job(services, who, job_id)
    with _worked_out(services.jobs.job_folder(who.owner, job_id) / RESULTS, wanted) as found:
        saved = found.savings()
        return PrescriptionResults(
            **saved._asdict(),
            num_cells=len(found.rate),
            num_treated=int(found.treat.sum()),
            sentences=list(found.sentences),
            forced=found.forced,
            files=_files_link(job_id, wanted),
        )


@router.get(
    f"/jobs/{{job_id}}/results/map/{FILES_NAME}",
    response_class=Response,
    responses={
        200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}},
        **_ANSWERS,
    },
)
def download_prescription(services: Work, who: Owner, job_id: JobId, wanted: Wanted) -> Response:
    """Download the prescription: Shapefile, GeoJSON, KML, ISOXML, and the cells with their rate."""
    finished_job(services, who, job_id)
    with _worked_out(services.jobs.job_folder(who.owner, job_id) / RESULTS, wanted) as found:
        data = _zip(found)
    headers = {"Content-Disposition": f'attachment; filename="{FILES_NAME}"'}
    return Response(data, media_type="application/zip", headers=headers)


@contextmanager
def _worked_out(results: FilePath, wanted: PrescriptionWanted) -> Iterator[Prescription]:
    """Work a prescription out; one at a time, since large maps take memory.

    Raises:
        Problem: The job was not over a mosaic, the model is not known well enough, or others wait.
    """
    from weedseg.maps.prescription import PrescriptionOptions, RateStep
    from weedseg.maps.prescription_files import read_prescription

    if not (results / "map.json").is_file():
        raise not_found("map")
    if not _one_at_a_time.acquire(timeout=_WAIT_S):
        raise busy("other prescriptions are being worked out")
    distances = wanted.model_dump(exclude={"threshold", "rate"})
    try:
        steps = (RateStep(wanted.threshold, wanted.rate),)
        yield read_prescription(results, PrescriptionOptions(steps=steps, **distances))
    except PrescriptionError as error:
        told = str(error).replace("force it", "ask with force=true")
        raise Problem(409, "Not known well enough", told) from error
    except ConfigError as error:
        raise Problem(422, "Unprocessable content", str(error)) from error
    finally:
        _one_at_a_time.release()


def _zip(prescription: Prescription) -> bytes:
    from weedseg.maps.prescription_files import write_prescription

    packed = io.BytesIO()
    with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(packed, "w") as archive:
        written = write_prescription(prescription, FilePath(name))
        for path in sorted(path for path in written if path.is_file()):
            stored = path.suffix in (".zip", ".gpkg")
            method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            archive.write(path, path.name, compress_type=method)
    return packed.getvalue()


def _files_link(job_id: str, wanted: PrescriptionWanted) -> Link:
    asked = wanted.model_dump(mode="json", exclude_defaults=True)
    return Link(
        href=f"/jobs/{job_id}/results/map/{FILES_NAME}?{urlencode(asked)}",
        rel=FILES_NAME,
        type="application/zip",
        title="prescription for a sprayer's terminal",
    )
