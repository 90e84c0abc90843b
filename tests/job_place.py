"""Jobs on a real database, real files and real worker processes, with the smallest real model."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from colour_model import make_colour_model
from PIL import Image as PillowImage
from sqlalchemy import select

from weedseg.serve.database import Database
from weedseg.serve.job_store import JobStore
from weedseg.serve.job_tables import ACTIVE, Step
from weedseg.serve.job_work import JobWork
from weedseg.serve.jobs import JobQueue
from weedseg.serve.limits import Limits
from weedseg.serve.models import ModelShelf
from weedseg.serve.predicting import Predictor
from weedseg.serve.settings import Settings
from weedseg.serve.uploads import UploadStore
from weedseg.serve.worker import Worker

ROOT = Path(__file__).resolve().parents[1]
OWNER = "north-farm"
LEASE_S = 1.0


class Place:
    """A data folder with everything that jobs need."""

    def __init__(self, folder: Path, url: str = "", **settings: object) -> None:
        model = folder / "model" / "colours.onnx"
        model.parent.mkdir(parents=True)
        model.write_bytes(make_colour_model())
        self.settings = Settings(
            data=folder / "data",
            database_url=url,
            model=model,
            decode_workers=1,
            infer_threads=1,
            job_worker=False,
            **settings,
        )
        self.database = Database.open(self.settings.data, url)
        self.limits = Limits(self.settings.data, 0, self.settings.quota_bytes)
        self.uploads = UploadStore(
            self.database,
            self.settings.data,
            self.limits,
            max_bytes=self.settings.max_upload_bytes,
            retention_days=self.settings.retention_days,
        )
        self.jobs = JobQueue(self.database, self.settings.data, self.uploads, self.limits)
        self.store = JobStore(self.database, LEASE_S)
        self.models = ModelShelf(self.settings)
        self._predictor: Predictor | None = None
        self._log_path = self.settings.data / "worker.log"
        self.processes: list[subprocess.Popen[bytes]] = []

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        if self._predictor is not None:
            self._predictor.close()
        self.database.close()

    # --- in this process

    @property
    def predictor(self) -> Predictor:
        if self._predictor is None:
            self._predictor = Predictor(self.settings, self.models)
        return self._predictor

    def worker(self, store: JobStore | None = None) -> Worker:
        work = JobWork(self.settings, self.database, self.predictor)
        return Worker(store or self.store, work, poll_s=0.01)

    def work(self) -> None:
        """Do every step there is, in this process."""
        worker = self.worker()
        while worker.work_once():
            pass

    def upload(self, name: str, data: bytes, owner: str = OWNER) -> str:
        upload = self.uploads.create(owner, name, len(data))
        writer = self.uploads.open(owner, upload.id, 0)
        writer.write(data)
        writer.close()
        return upload.id

    def options(self, **others: object) -> dict[str, object]:
        model = self.models.default
        given = {"model": model.name, "model_sha256": model.sha256, "mm_per_px": None}
        return {**given, **others}

    def submit(self, photos: dict[str, bytes], owner: str = OWNER, **options: object) -> str:
        ids = [self.upload(name, data, owner) for name, data in photos.items()]
        return self.jobs.submit(owner, ids, self.options(**options)).id

    def steps(self, job_id: str) -> list[Step]:
        with self.database.read() as session:
            return session.scalars(
                select(Step).where(Step.job_id == job_id).order_by(Step.number)
            ).all()

    def files(self, job_id: str, owner: str = OWNER) -> dict[str, str]:
        """Checksum of every result of a job."""
        folder = self.jobs.job_folder(owner, job_id) / "results"
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    # --- processes

    def start_worker(self, *command: str) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WEEDSEG_")}
        program = command or ("-m", "weedseg", "worker", "--lease")
        with self._log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *program, str(LEASE_S)],
                env={**environment, **self.settings.to_environment(), "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait(30)

    def log(self) -> str:
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def wait(self, job_ids: Iterable[str], seconds: float = 60, owner: str = OWNER) -> None:
        """Wait until jobs are over."""
        waiting, end = set(job_ids), time.monotonic() + seconds
        while waiting:
            waiting -= {i for i in waiting if self.jobs.get(owner, i).status.value not in ACTIVE}
            if waiting and time.monotonic() > end:
                raise AssertionError(f"{len(waiting)} jobs are stuck\n{self.log()}")
            time.sleep(0.02)


def field_photo(
    seed: int = 0, size: tuple[int, int] = (48, 64), kind: str = "PNG", **save
) -> bytes:
    """A photo with patches of soil, crop and weed."""
    rng = np.random.default_rng(seed)
    colours = np.array([(110, 80, 50), (40, 190, 30), (210, 30, 40)])
    coarse = rng.integers(0, 3, (-(-size[0] // 8), -(-size[1] // 8)))
    ids = np.kron(coarse, np.ones((8, 8), int))[: size[0], : size[1]]
    pixels = np.clip(colours[ids] + rng.integers(-9, 10, (*size, 3)), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    PillowImage.fromarray(pixels).save(file, kind, **save)
    return file.getvalue()


def zip_of(members: dict[str, bytes], **options: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def tus_metadata(name: str) -> str:
    return f"filename {base64.b64encode(name.encode()).decode()}"


def upload_over(client, name: str, data: bytes) -> str:
    """Upload a file over HTTP; returns its id."""
    headers = {"Tus-Resumable": "1.0.0"}
    announced = {**headers, "Upload-Length": str(len(data)), "Upload-Metadata": tus_metadata(name)}
    answer = client.post("/v1/uploads", headers=announced)
    assert answer.status_code == 201, answer.text
    piece = {**headers, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    url = answer.headers["Location"]
    assert client.patch(url, content=data, headers=piece).status_code == 204
    return url.rpartition("/")[2]


def kill_all(server) -> None:
    """Kill a server with all of its processes at once, as a power cut does."""
    for pid in server.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait(30)
