"""Typed client of the service: one photo at once, or a job over many.

    with Client("http://127.0.0.1:8000") as client:
        print(client.predict(Path("photo.jpg")).coverage("weed"))
        job = client.wait(client.submit([Path("photos.zip")]))
        client.download(job, Download.TABLE, Path("weeds.csv"))
        job = client.submit([Path("field.tif")], map_options=MapOptions(crop="maize"))
        print(client.weed_map(client.wait(job)).weed_share)

Uploads go on where a dropped connection left them; a busy service is asked again when it says so.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

import httpx

from weedseg.client.answers import (
    Download,
    Job,
    MapOptions,
    MapResult,
    PhotoResult,
    job_of,
    map_of,
    photo_of,
)
from weedseg.errors import OutputError, ServiceError
from weedseg.imaging import IMAGE_SUFFIXES

__all__ = ["Client", "Download", "Job", "MapOptions", "MapResult", "PhotoResult"]

TUS = {"Tus-Resumable": "1.0.0"}
PIECE_BYTES = 8 << 20
MAX_TRIES = 6
_AGAIN = (429, 503)


class Client:
    """Talks to one service; close it, or use it in a ``with`` block."""

    def __init__(self, url: str, key: str | None = None, timeout_s: float = 60.0) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: Address of the service.
            key: API key; None takes the environment's WEEDSEG_API_KEY, if any.
            timeout_s: Longest silence of the service.
        """
        key = key or os.environ.get("WEEDSEG_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)

    def __enter__(self) -> Client:
        """Return the client itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """List the models of the service.

        Raises:
            ServiceError: The service refuses or cannot be reached.
        """
        return list(self._json("GET", "/v1/models")["models"])

    def predict(
        self, photo: Path, *, model: str = "", mm_per_px: float | None = None
    ) -> PhotoResult:
        """Segment one photo.

        Args:
            photo: A JPEG, PNG, TIFF or WebP file.
            model: Name of the model; the default one if empty.
            mm_per_px: Ground resolution; adds areas in m2 to `details`.

        Raises:
            ServiceError: The service refuses or cannot be reached.
        """
        parameters = {"model": model, "mm_per_px": mm_per_px}
        answer = self._request(
            "POST",
            "/v1/predict",
            params={k: v for k, v in parameters.items() if v},
            files={"file": (photo.name, photo.read_bytes())},
            headers={"Accept": "application/json"},
        ).json()
        return photo_of(answer)

    def overlay(self, photo: Path, *, model: str = "") -> bytes:
        """Return the photo with the class colours over it, as JPEG.

        Raises:
            ServiceError: The service refuses or cannot be reached.
        """
        return self._request(
            "POST",
            "/v1/predict",
            params={"model": model} if model else {},
            files={"file": (photo.name, photo.read_bytes())},
            headers={"Accept": "image/jpeg"},
        ).content

    def upload(self, file: Path, progress: Callable[[int, int], None] | None = None) -> str:
        """Send a file in pieces; after a dropped connection it goes on where it was.

        Args:
            file: A photo, or a zip of photos.
            progress: Called with bytes sent and bytes in all.

        Returns:
            The id of the upload.

        Raises:
            ServiceError: The service refuses, or stays out of reach.
        """
        size = file.stat().st_size
        name = base64.b64encode(file.name.encode()).decode()
        headers = {**TUS, "Upload-Length": str(size), "Upload-Metadata": f"filename {name}"}
        place = self._request("POST", "/v1/uploads", headers=headers).headers["Location"]
        offset = 0
        with file.open("rb") as source:
            while offset < size:
                source.seek(offset)
                offset = self._send_piece(place, source.read(PIECE_BYTES), offset)
                if progress is not None:
                    progress(offset, size)
        return str(place.rsplit("/", maxsplit=1)[-1])

    def submit(
        self,
        inputs: Sequence[Path | str],
        *,
        model: str = "",
        mm_per_px: float | None = None,
        map_options: MapOptions | None = None,
    ) -> Job:
        """Hand in a job over photos and zips, or over one orthomosaic.

        Args:
            inputs: Files, folders of photos, or ids of uploads.
            model: Name of the model; the default one if empty.
            mm_per_px: Ground resolution of the photos; a mosaic has its own.
            map_options: How to map a mosaic.

        Raises:
            FieldDataError: The boundary is no GeoJSON file.
            ServiceError: The service refuses or cannot be reached, or there is no photo.
        """
        of_map = map_options.to_inputs() if map_options else {}
        uploads = [item if isinstance(item, str) else self.upload(item) for item in _files(inputs)]
        body = {"photos": uploads, "model": model, "mm_per_px": mm_per_px, **of_map}
        document = self._json(
            "POST",
            "/processes/weed-map/execution",
            json={"inputs": {k: v for k, v in body.items() if v}},
            headers={"Prefer": "respond-async", "Idempotency-Key": uuid4().hex},
        )
        return job_of(document)

    def job(self, job_id: str) -> Job:
        """Ask how far a job is.

        Raises:
            ServiceError: The service refuses or cannot be reached.
        """
        return job_of(self._json("GET", f"/jobs/{job_id}"))

    def wait(
        self,
        job: Job,
        timeout_s: float = 3600.0,
        progress: Callable[[Job], None] | None = None,
    ) -> Job:
        """Wait until a job is finished, whichever way.

        Args:
            job: From `submit`.
            timeout_s: Longest wait.
            progress: Called with every answer.

        Raises:
            ServiceError: The service refuses, cannot be reached, or takes too long.
        """
        until, pause_s = time.monotonic() + timeout_s, 0.1
        while not job.finished:
            if time.monotonic() > until:
                raise ServiceError(
                    f"job {job.id} at {job.progress} % after {timeout_s:.0f} s",
                    "a finished job",
                    "wait longer; the job goes on",
                )
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 2.0)
            job = self.job(job.id)
            if progress is not None:
                progress(job)
        return job

    def cancel(self, job: Job) -> Job:
        """Cancel a job; a finished one is deleted with its results.

        Raises:
            ServiceError: The service refuses or cannot be reached.
        """
        return job_of(self._json("DELETE", f"/jobs/{job.id}"))

    def results(self, job: Job) -> list[dict[str, Any]]:
        """List what a finished job found, photo by photo.

        Raises:
            ServiceError: The service refuses or cannot be reached.
        """
        rows: list[dict[str, Any]] = []
        while True:
            page = {"offset": len(rows), "limit": 1000}
            answer = self._json("GET", f"/jobs/{job.id}/results", params=page)
            rows += answer["photos"]
            if len(rows) >= answer["total"] or not answer["photos"]:
                return rows

    def weed_map(self, job: Job) -> MapResult:
        """Return what a finished job found on an orthomosaic.

        Raises:
            ServiceError: The service refuses or cannot be reached, or the job was over photos.
        """
        answer = self._json("GET", f"/jobs/{job.id}/results", params={"limit": 1})
        if answer.get("map") is None:
            raise ServiceError(f"job {job.id} has no map", "a job over a mosaic", "ask for results")
        return map_of(answer["map"])

    def prescribe(self, job: Job, path: Path, **wanted: float) -> dict[str, Any]:
        """Save what to spray, a zip of Shapefile, GeoJSON, KML and ISOXML, of a job over a mosaic.

        Args:
            job: A finished one.
            path: Where the zip goes.
            wanted: threshold (weed cover, share 0-1) and rate (litres per hectare); buffer_m,
                merge_m, min_patch_m2, and force=True for a model that is not known well enough.

        Returns:
            What is treated and what that saves, as the service says it.

        Raises:
            ServiceError: The service refuses or cannot be reached.
            OutputError: The file cannot be written.
        """
        told = self._json("GET", f"/jobs/{job.id}/results/map/prescription", params=wanted)
        self._save(told["files"]["href"], path)
        return told

    def download(self, job: Job, what: Download, path: Path) -> None:
        """Save a file of a finished job; nothing half-written is left.

        Raises:
            ServiceError: The service refuses or cannot be reached.
            OutputError: The file cannot be written.
        """
        self._save(f"/jobs/{job.id}/results/{what.value}", path)

    def _save(self, place: str, path: Path) -> None:
        part = path.with_name(f".{path.name}.part")
        try:
            with self._http.stream("GET", place) as answer:
                if answer.is_error:
                    answer.read()
                    raise _refusal(answer)
                with part.open("wb") as file:
                    for piece in answer.iter_bytes():
                        file.write(piece)
            part.replace(path)
        except httpx.HTTPError as error:
            raise _unreachable(self._http, error) from error
        except OSError as error:
            raise OutputError(
                f"{path}: {error.strerror}", "a writable path", "choose another"
            ) from error
        finally:
            part.unlink(missing_ok=True)

    def _send_piece(self, place: str, piece: bytes, offset: int) -> int:
        """Send one piece; returns how many bytes the service has."""
        headers = {
            **TUS,
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
        }
        for attempt in range(MAX_TRIES):
            try:
                answer = self._http.patch(place, content=piece, headers=headers)
            except httpx.TransportError as error:
                if attempt + 1 == MAX_TRIES:
                    raise _unreachable(self._http, error) from error
                time.sleep(0.2 * 2**attempt)
                return self._offset(place)
            if answer.status_code == 409:
                return self._offset(place)
            if answer.status_code not in (*_AGAIN, 423):
                if answer.is_error:
                    raise _refusal(answer)
                return int(answer.headers["Upload-Offset"])
            time.sleep(_retry_s(answer))
        raise _refusal(answer)

    def _offset(self, place: str) -> int:
        return int(self._request("HEAD", place, headers=TUS).headers["Upload-Offset"])

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return dict(self._request(method, path, **options).json())

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request; asks again when the service is busy or was restarted."""
        for attempt in range(MAX_TRIES):
            last = attempt + 1 == MAX_TRIES
            try:
                answer = self._http.request(method, path, **options)
            except httpx.TransportError as error:
                if last:
                    raise _unreachable(self._http, error) from error
                time.sleep(0.2 * 2**attempt)
                continue
            if answer.status_code in _AGAIN and not last:
                time.sleep(_retry_s(answer))
                continue
            if answer.is_error:
                raise _refusal(answer)
            return answer
        raise _unreachable(self._http, httpx.TransportError("no answer"))


def _files(inputs: Sequence[Path | str]) -> list[Path | str]:
    """Put the photos of folders in their place.

    Raises:
        ServiceError: There is no photo at all.
    """
    found: list[Path | str] = []
    for item in inputs:
        if isinstance(item, Path) and item.is_dir():
            found += sorted(p for p in item.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        else:
            found.append(item)
    if not found:
        raise ServiceError("no photo", "at least one photo or zip", "name files or folders")
    return found


def _retry_s(answer: httpx.Response) -> float:
    try:
        return min(float(answer.headers.get("Retry-After", "1")), 30.0)
    except ValueError:
        return 1.0


def _refusal(answer: httpx.Response) -> ServiceError:
    """Turn a problem body into an error."""
    try:
        body = answer.json()
        told = str(body.get("detail") or body.get("error") or body.get("title"))
    except ValueError:
        told = answer.reason_phrase
    request_id = answer.headers.get("X-Request-Id", "")
    found = f"{answer.request.method} {answer.url.path} answered {answer.status_code}: {told}"
    remedy = f"ask the service's operator about request {request_id}" if request_id else "try again"
    return ServiceError(found, "success", remedy, status=answer.status_code)


def _unreachable(http: httpx.Client, error: httpx.HTTPError) -> ServiceError:
    found = f"no answer from {http.base_url}: {error}"
    return ServiceError(found, "a running service", "start `weedseg serve` or correct the address")
