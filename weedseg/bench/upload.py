"""How long does a person wait from sending a photo to its overlay, and what takes so long?"""

from __future__ import annotations

import base64
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from weedseg.bench.latency import Camera, camera_pictures
from weedseg.bench.serve import machine_facts, to_jpeg
from weedseg.bench.serve_load import STAGES, ServerProcess
from weedseg.edge.segmenter import Segmenter
from weedseg.errors import ServiceError

PHONE = Camera(width_px=4000, height_px=3000)
"""12 megapixels."""
_TUS = {"Tus-Resumable": "1.0.0"}
_POLL_S, _MAX_S = 0.05, 300.0


def measure_upload(model: Path, photo: Path | None = None, rounds: int = 5) -> dict[str, Any]:
    """Time one photo on an idle service with the settings that it comes with.

    Both ways are timed: ``POST /v1/predict`` for a JPEG overlay, and the web page's way, which is
    an upload in pieces, a job, and the overlay of its result. The page itself asks once a second;
    here the job is asked all the time.

    Args:
        model: A model file.
        photo: A photo file; by default one of 12 megapixels is made of the golden sample.
        rounds: Photos on each way.

    Returns:
        One line: the median by way, s, and of the direct one how long every stage took.

    Raises:
        ModelFileError: The model cannot be run.
        RuntimeUnavailableError: The service does not start.
        ServiceError: A request failed.
    """
    data = photo.read_bytes() if photo else to_jpeg(camera_pictures(model, PHONE)[0])
    segmenter = Segmenter(model)
    with tempfile.TemporaryDirectory() as folder:
        with ServerProcess(model, Path(folder) / "direct", {}) as server:
            direct = _direct(server, data, rounds)
            memory_mib = server.memory_mib()
        settings = {"job_worker": "true"}
        with (
            ServerProcess(model, Path(folder) / "page", settings) as server,
            httpx.Client(base_url=server.url, timeout=_MAX_S) as http,
        ):
            page_s = [_seconds(lambda: _by_job(http, data)) for _ in range(rounds + 1)]
    return {
        "bench": "upload",
        "model_sha256": segmenter.sha256,
        "photo": photo.name if photo else f"{PHONE.width_px}x{PHONE.height_px} px, made",
        "photo_bytes": len(data),
        "rounds": rounds,
        "threads": segmenter.runtime.threads,
        "direct_s": direct.pop("whole"),
        "page_s": statistics.median(page_s[1:]),
        "stages_s": direct,
        "memory_mib": memory_mib,
        **machine_facts(segmenter),
    }


def _direct(server: ServerProcess, data: bytes, rounds: int) -> dict[str, float]:
    """Return of the middle one of the requests the whole, each stage, and what is none, s."""
    overlay, rows = {"Accept": "image/jpeg"}, []
    with httpx.Client(base_url=server.url, timeout=_MAX_S) as http:
        for _ in range(rounds + 1):
            before = server.stages()
            whole = _seconds(
                lambda: _send(http, "POST", "/v1/predict", content=data, headers=overlay)
            )
            after = server.stages()
            stages = [after[name][0] - before[name][0] for name in STAGES]
            rows.append([whole, *stages, whole - sum(stages)])
    middle = sorted(rows[1:])[(rounds - 1) // 2]  # the first one loads the model
    return dict(zip(("whole", *STAGES, "rest"), middle))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _by_job(http: httpx.Client, data: bytes) -> bytes:
    """Go the web page's way.

    Raises:
        ServiceError: The job failed, or takes too long.
    """
    name = base64.b64encode(b"photo.jpg").decode()
    headers = {**_TUS, "Upload-Length": str(len(data)), "Upload-Metadata": f"filename {name}"}
    place = _send(http, "POST", "/v1/uploads", headers=headers).headers["Location"]
    headers = {
        **_TUS,
        "Upload-Offset": "0",
        "Content-Type": "application/offset+octet-stream",
    }
    _send(http, "PATCH", place, content=data, headers=headers)
    inputs = {"inputs": {"photos": [place.rpartition("/")[2]]}}
    job = _send(http, "POST", "/processes/weed-map/execution", json=inputs).json()
    until = time.monotonic() + _MAX_S
    while job["status"] in ("accepted", "running") and time.monotonic() < until:
        time.sleep(_POLL_S)
        job = _send(http, "GET", f"/jobs/{job['jobID']}").json()
    if job["status"] != "successful":
        raise ServiceError(
            f"job {job['status']}: {job['message']}", "a successful one", "look at its log"
        )
    return _send(http, "GET", f"/jobs/{job['jobID']}/photos/1/overlay").content


def _send(http: httpx.Client, method: str, path: str, **content: Any) -> httpx.Response:
    """Send a request.

    Raises:
        ServiceError: It is refused or gets no answer.
    """
    try:
        answer = http.request(method, path, **content)
    except httpx.HTTPError as error:
        raise ServiceError(f"{method} {path}: {error}", "an answer", "look at its log") from error
    if answer.is_error:
        raise ServiceError(
            f"{method} {path}: {answer.status_code} {answer.text[:200]}",
            "a photo that is accepted",
            "choose another photo",
            answer.status_code,
        )
    return answer
