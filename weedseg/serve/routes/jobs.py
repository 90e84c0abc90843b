"""Jobs over many photos, as OGC API Processes has it: one process, ``weed-map``.

Hand uploads in, ask how far the job is, fetch results, cancel.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from fastapi.responses import FileResponse

from weedseg.serve.auth import RESPONSES, Principal, signed_in
from weedseg.serve.job_schemas import (
    ID_PATTERN,
    MAX_UPLOADS,
    Execution,
    JobInputs,
    JobList,
    JobResults,
    Kind,
    Link,
    MapFile,
    MapResults,
    PhotoCount,
    PhotoStatus,
    ShardCount,
    StatusInfo,
)
from weedseg.serve.job_tables import JobStatus, Step, StepStatus
from weedseg.serve.jobs import RESULTS, JobView
from weedseg.serve.problems import Problem, not_found, problem_responses
from weedseg.serve.results import (
    CSV_NAME,
    MAP_FILES,
    MAP_SUMMARY_NAME,
    OVERVIEW_NAME,
    PHOTO_FILES,
    REPORT_NAME,
    ZIP_NAME,
    photo_file,
)
from weedseg.serve.services import Services, services_of

router = APIRouter(tags=["jobs"])

PROCESS = "weed-map"
ASYNCHRONOUS = "respond-async"
_NOT_TOLD = ("inputs", "model_sha256", "boundary")
_REPORT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"

Owner = Annotated[Principal, Depends(signed_in("jobs"))]
Work = Annotated[Services, Depends(services_of)]
JobId = Annotated[str, Path(pattern=ID_PATTERN, description="id of the job")]
Number = Annotated[int, Path(ge=1, le=1_000_000, description="number of the photo, from 1")]
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=1_000_000_000)]


@router.get("/processes", responses=RESPONSES)
def list_processes(who: Owner) -> dict[str, Any]:
    """List what jobs can do."""
    return {"processes": [_summary()], "links": [_link("/processes", "self")]}


@router.get(f"/processes/{PROCESS}", responses=RESPONSES)
def describe_process(who: Owner) -> dict[str, Any]:
    """Describe the one process."""
    schema = JobInputs.model_json_schema()["properties"]
    most = {"photos": MAX_UPLOADS}
    inputs = {
        name: {
            "title": name,
            "description": part.get("description", ""),
            "minOccurs": int(name == "photos"),
            "maxOccurs": most.get(name, 1),
            "schema": part,
        }
        for name, part in schema.items()
    }
    kinds = {
        "csv": "text/csv",
        "masks": "application/zip",
        "report": "text/html",
        "map": "application/json",
    }
    outputs = {
        name: {"title": name, "schema": {"type": "string", "contentMediaType": kind}}
        for name, kind in kinds.items()
    }
    return {**_summary(), "inputs": inputs, "outputs": outputs}


def _summary() -> dict[str, Any]:
    return {
        "id": PROCESS,
        "title": "Weeds in field photos",
        "description": "Crop, weed and background per pixel for many photos or a mosaic.",
        "version": "1.0.0",
        "jobControlOptions": ["async-execute", "dismiss"],
        "outputTransmission": ["reference"],
        "links": [_link(f"/processes/{PROCESS}", "self")],
    }


@router.post(
    f"/processes/{PROCESS}/execution",
    status_code=201,
    responses={**RESPONSES, **problem_responses(404, 409, 413, 422, 507)},
)
def execute(
    response: Response,
    services: Work,
    who: Owner,
    execution: Execution,
    prefer: Annotated[str, Header(description=f"jobs are always {ASYNCHRONOUS}")] = "",
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=100, description="the same again gives the same job"),
    ] = None,
) -> StatusInfo:
    """Hand a job in; once this answers, it is done whatever crashes.

    Raises:
        Problem: An upload is named twice or not there, or there is no room for the results.
    """
    inputs = execution.inputs
    if len(set(inputs.photos)) != len(inputs.photos):
        raise Problem(422, "Unprocessable content", "an upload is named twice; expected once each")
    model = services.models.get(inputs.model)
    given = inputs.model_dump(include={"mm_per_px", "crop", "cell_m", "resample"})
    if inputs.boundary is not None:
        given["boundary"] = inputs.boundary.model_dump(exclude_none=True)
    options = {"model": model.name, "model_sha256": model.sha256, **given}
    job = services.jobs.submit(who.owner, inputs.photos, options, idempotency_key)
    response.headers["Location"] = f"/jobs/{job.id}"
    if ASYNCHRONOUS in prefer:
        response.headers["Preference-Applied"] = ASYNCHRONOUS
    return _status(services, job)


@router.get("/jobs", responses=RESPONSES)
def list_jobs(
    services: Work,
    who: Owner,
    limit: Limit = 100,
    offset: Offset = 0,
    status: JobStatus | None = None,
) -> JobList:
    """List your jobs, the newest first."""
    jobs = services.jobs.list(who.owner, limit, offset, status)
    links = [_link("/jobs", "self")]
    if len(jobs) == limit:
        more = f"/jobs?limit={limit}&offset={offset + limit}"
        links.append(_link(f"{more}&status={status.value}" if status else more, "next"))
    return JobList(jobs=[_status(services, job) for job in jobs], links=links)


@router.get("/jobs/{job_id}", responses={**RESPONSES, **problem_responses(404)})
def show_job(response: Response, services: Work, who: Owner, job_id: JobId) -> StatusInfo:
    """Ask how far a job is."""
    job = services.jobs.get(who.owner, job_id)
    response.headers["Cache-Control"] = "no-store"
    return _status(services, job)


@router.delete("/jobs/{job_id}", responses={**RESPONSES, **problem_responses(404)})
def dismiss(services: Work, who: Owner, job_id: JobId) -> StatusInfo:
    """Cancel a job; delete a finished one with its results."""
    return _status(services, services.jobs.remove(who.owner, job_id))


@router.get("/jobs/{job_id}/photos", responses={**RESPONSES, **problem_responses(404)})
def list_photos(
    services: Work, who: Owner, job_id: JobId, limit: Limit = 100, offset: Offset = 0
) -> list[PhotoStatus]:
    """List the photos of a job, also while it runs."""
    photos = services.jobs.photos(who.owner, job_id, limit, offset)
    return [_photo(job_id, photo) for photo in photos]


@router.get("/jobs/{job_id}/results", responses={**RESPONSES, **problem_responses(404, 409)})
def show_results(
    services: Work, who: Owner, job_id: JobId, limit: Limit = 100, offset: Offset = 0
) -> JobResults:
    """Say what was found, photo by photo, and where the files are."""
    job = finished_job(services, who, job_id)
    base = f"/jobs/{job_id}/results"
    report = _link(f"{base}/report.html", "report", "text/html", "report to read and send on")
    if job.num_shards:
        results = services.jobs.job_folder(who.owner, job_id) / RESULTS
        found = _map_results(results, f"{base}/map")
        table = _link(f"{base}/map/cells.csv", "csv", "text/csv", "table of all cells")
        return JobResults(csv=table, masks=None, report=report, map=found, photos=[], total=0)
    photos = services.jobs.photos(who.owner, job_id, limit, offset)
    return JobResults(
        csv=_link(f"{base}/csv", "csv", "text/csv", "table of all photos"),
        masks=_link(f"{base}/masks.zip", "masks", "application/zip", "class maps of all photos"),
        report=report,
        map=None,
        photos=[_photo(job_id, photo) for photo in photos],
        total=job.num_photos,
    )


def _map_results(results: FilePath, base: str) -> MapResults:
    """Read what was found of a mosaic.

    Raises:
        Problem: It is gone.
    """
    try:
        found = json.loads((results / MAP_SUMMARY_NAME).read_bytes())
    except FileNotFoundError as error:
        raise not_found("result") from error
    files = [_link(f"{base}/{name}", name, *about) for name, about in MAP_FILES.items()]
    told = "what to spray"
    prescription = _link(f"{base}/prescription", "prescription", "application/json", told)
    return MapResults(**found, overview=files[-1], files=files[:-1], prescription=prescription)


def _download(kind: str) -> dict[int | str, dict[str, Any]]:
    """Describe a file for the OpenAPI."""
    schema = {"type": "string", "format": "binary"}
    return {
        200: {"content": {kind: {"schema": schema}}},
        **RESPONSES,
        **problem_responses(404, 409),
    }


@router.get("/jobs/{job_id}/results/csv", response_class=Response, responses=_download("text/csv"))
def download_table(services: Work, who: Owner, job_id: JobId) -> FileResponse:
    """Download the table of all photos."""
    return _file(services, who, job_id, CSV_NAME, "text/csv; charset=utf-8")


@router.get(
    "/jobs/{job_id}/results/masks.zip",
    response_class=Response,
    responses=_download("application/zip"),
)
def download_masks(services: Work, who: Owner, job_id: JobId) -> FileResponse:
    """Download the class maps of all photos."""
    return _file(services, who, job_id, ZIP_NAME, "application/zip")


@router.get(
    "/jobs/{job_id}/results/report.html",
    response_class=Response,
    responses=_download("text/html"),
)
def download_report(services: Work, who: Owner, job_id: JobId) -> FileResponse:
    """Read the report; it is one file that loads nothing."""
    response = _file(services, who, job_id, REPORT_NAME, "text/html; charset=utf-8", "inline")
    response.headers["Content-Security-Policy"] = _REPORT_POLICY
    return response


@router.get(
    "/jobs/{job_id}/results/map/{name}",
    response_class=Response,
    responses=_download("application/octet-stream"),
)
def download_map(services: Work, who: Owner, job_id: JobId, name: MapFile) -> FileResponse:
    """Download a file of a map."""
    place = "inline" if name.value == OVERVIEW_NAME else "attachment"
    return _file(services, who, job_id, name.value, MAP_FILES[name.value][0], place)


@router.get(
    "/jobs/{job_id}/photos/{number}/{kind}",
    response_class=Response,
    responses=_download("image/*"),
)
def download_photo(
    services: Work, who: Owner, job_id: JobId, number: Number, kind: Kind
) -> FileResponse:
    """Download a picture of a photo, or what is known of it as JSON, as soon as it is done.

    Raises:
        Problem: 404 without such a photo, or before it is done.
    """
    photo = services.jobs.photo(who.owner, job_id, number)
    path = photo_file(services.jobs.job_folder(who.owner, job_id) / RESULTS, number, kind.value)
    if photo.status != StepStatus.DONE.value or not path.is_file():
        raise not_found("result")
    headers = {"Cache-Control": "private, max-age=3600, immutable"}
    return FileResponse(path, media_type=PHOTO_FILES[kind.value][1], headers=headers)


def finished_job(services: Services, who: Principal, job_id: str) -> JobView:
    """Find a job that has results.

    Raises:
        Problem: It is not there, not finished, or has failed.
    """
    job = services.jobs.get(who.owner, job_id)
    if job.status is JobStatus.SUCCESSFUL:
        return job
    if job.status is JobStatus.FAILED:
        raise Problem(409, "Job failed", job.message)
    told = "was cancelled" if job.status is JobStatus.DISMISSED else "is not finished"
    raise Problem(409, "No results", f"the job {told}; expected a finished one; see /jobs/{job_id}")


def _file(
    services: Services,
    who: Principal,
    job_id: str,
    name: str,
    kind: str,
    disposition: str = "attachment",
) -> FileResponse:
    """Send a file of a finished job.

    Raises:
        Problem: There is none.
    """
    finished_job(services, who, job_id)
    path = services.jobs.job_folder(who.owner, job_id) / RESULTS / name
    if not path.is_file():
        raise not_found("result")
    return FileResponse(path, media_type=kind, filename=name, content_disposition_type=disposition)


def _status(services: Services, job: JobView) -> StatusInfo:
    here = f"/jobs/{job.id}"
    links = [_link(here, "self"), _link(f"{here}/photos", "photos")]
    if job.status is JobStatus.SUCCESSFUL:
        links.append(_link(f"{here}/results", "http://www.opengis.net/def/rel/ogc/1.0/results"))
    kept_s = services.settings.retention_days * 86400
    options = job.options
    return StatusInfo(
        jobID=job.id,
        status=job.status,
        message=job.message,
        progress=job.progress,
        created=_moment(job.created_s),
        started=_moment(job.started_s),
        finished=_moment(job.finished_s),
        updated=_moment(job.updated_s),
        expires=_moment(job.finished_s + kept_s if job.finished_s else None),
        photos=PhotoCount(total=job.num_photos, bad=job.num_bad),
        shards=ShardCount(total=job.num_shards, done=job.num_mapped),
        inputs={
            "photos": [row["name"] for row in options["inputs"]],
            **{k: v for k, v in options.items() if k not in _NOT_TOLD},
            "boundary": "boundary" in options,
        },
        links=links,
    )


def _photo(job_id: str, photo: Step) -> PhotoStatus:
    base = f"/jobs/{job_id}/photos/{photo.number}"
    done = photo.status == StepStatus.DONE.value
    return PhotoStatus(
        number=photo.number,
        photo=photo.name,
        status=StepStatus(photo.status),
        problem=photo.error if photo.status == StepStatus.FAILED.value else "",
        summary=photo.summary if done else None,
        links={kind.value: f"{base}/{kind.value}" for kind in Kind} if done else {},
    )


def _link(href: str, rel: str, kind: str = "application/json", title: str = "") -> Link:
    return Link(href=href, rel=rel, type=kind, title=title)


def _moment(seconds: float | None) -> Any:
    """Return a moment, or None."""
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
