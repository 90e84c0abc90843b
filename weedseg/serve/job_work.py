"""The work of a job, step by step; a step may be done again and ends in the same bytes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from weedseg.errors import FieldDataError, ModelFileError, RuntimeUnavailableError
from weedseg.imaging import IMAGE_SUFFIXES
from weedseg.serve.archives import MAX_PHOTOS, is_zip, list_photos, read_member, too_large
from weedseg.serve.database import Database
from weedseg.serve.files import jobs_folder, remove_folder
from weedseg.serve.job_report import write_report
from weedseg.serve.job_store import Claim, PhotoSource
from weedseg.serve.job_tables import ACTIVE, Job, StepStatus
from weedseg.serve.jobs import PHOTOS, RESULTS
from weedseg.serve.jobs import list_photos as list_photo_steps
from weedseg.serve.limits import Limits
from weedseg.serve.models import ServedModel
from weedseg.serve.predicting import Predictor
from weedseg.serve.results import (
    CSV_NAME,
    REPORT_NAME,
    ZIP_NAME,
    remove_leftovers,
    write_masks,
    write_photo,
    write_table,
)
from weedseg.serve.settings import Settings

if TYPE_CHECKING:
    from weedseg.serve.map_work import MapWork

PHOTO_SUFFIXES = IMAGE_SUFFIXES | {".heic", ".heif"}
"""Files of a zip that are taken for photos."""
MAX_PHOTO_BYTES = 512 << 20
"""Largest photo file of a job."""


class JobWork:
    """Does the steps of jobs with one model runtime."""

    def __init__(self, settings: Settings, database: Database, predictor: Predictor) -> None:
        """Remember where things are.

        Args:
            settings: Of the service.
            database: Holds the rows.
            predictor: Decodes and segments.
        """
        self._settings = settings
        self._data = settings.data
        self._database = database
        self._predictor = predictor
        self._maps: MapWork | None = None

    def folder(self, claim: Claim) -> Path:
        """Return the folder of a claim's job."""
        return jobs_folder(self._data, claim.owner) / claim.job_id

    def unpack(self, claim: Claim) -> list[PhotoSource]:
        """Find the photos in the uploads; a zip that is refused counts as one bad photo.

        Raises:
            FieldDataError: There is no photo, or there are too many.
            ModelFileError: The model was exchanged.
        """
        self._model(claim)
        photos: list[PhotoSource] = []
        for row in claim.options["inputs"]:
            path = self.folder(claim) / PHOTOS / row["file"]
            if not is_zip(path):
                photos.append(PhotoSource(name=row["name"], file=row["file"]))
                continue
            try:
                members = list_photos(
                    path, row["name"], PHOTO_SUFFIXES, self._settings.max_upload_bytes
                )
            except FieldDataError as error:
                photos.append(PhotoSource(name=row["name"], error=str(error)))
                continue
            photos += [PhotoSource(name=m, file=row["file"], member=m) for m in members]
        if not photos or len(photos) > MAX_PHOTOS:
            raise FieldDataError(
                f"{len(photos)} photos in this job" if photos else "no photo in this job",
                f"1 to {MAX_PHOTOS} photos, plain or in zips",
                "hand in several smaller jobs" if photos else "look into the zips",
            )
        return photos

    def plan_map(self, claim: Claim) -> int:
        """Take a mosaic in, if that is what came: one GeoTIFF with a CRS.

        Returns:
            Number of shards; 0 when it is no mosaic.

        Raises:
            WeedsegError: The mosaic cannot be mapped, or the disk is full.
            Problem: There is no room for the map.
        """
        if len(claim.options["inputs"]) != 1 or not can_map():
            return 0
        return self._map_work().prepare(
            self._folders(claim), claim, self._model(claim), self._wanted(claim)
        )

    def shard(self, claim: Claim) -> None:
        """Segment one shard of a mosaic.

        Raises:
            WeedsegError: The mosaic or the model cannot be used, or the disk is full.
        """
        self._map_work().shard(self._folders(claim), claim, self._model(claim))

    def photo(self, claim: Claim) -> dict[str, Any]:
        """Segment one photo and write its results.

        Returns:
            What tables need to know.

        Raises:
            ImageError: The photo is damaged or too large.
            Problem: The decoder refuses it.
            OutputError: The disk is full or not writable.
            ModelFileError: The model was exchanged.
            RuntimeUnavailableError: ONNX Runtime fails.
        """
        model = self._model(claim)
        folder = self.folder(claim)
        path = folder / PHOTOS / claim.source["file"]
        if claim.source["member"]:
            data = read_member(path, claim.source["member"], MAX_PHOTO_BYTES)
        elif path.stat().st_size > MAX_PHOTO_BYTES:
            raise too_large(claim.name, path.stat().st_size, MAX_PHOTO_BYTES)
        else:
            data = path.read_bytes()
        prediction = self._predictor.predict(data, claim.name, model.name)
        mm_per_px = claim.options.get("mm_per_px")
        return write_photo(folder / RESULTS, claim.number, claim.name, prediction, mm_per_px)

    def report(self, claim: Claim) -> str:
        """Write table, zip and report over all photos, or the map of a mosaic.

        Returns:
            Why the job failed; empty when at least one photo was segmented.

        Raises:
            OutputError: The disk is full or not writable.
            ModelFileError: The model was exchanged.
        """
        model = self._model(claim)
        with self._database.read() as session:
            photos = list_photo_steps(session, claim.job_id)
        if not photos:
            self._map_work().finish(self._folders(claim), claim, model, self._wanted(claim))
            return ""
        bad = [photo for photo in photos if photo.status != StepStatus.DONE.value]
        results = self.folder(claim) / RESULTS
        remove_leftovers(results)
        write_table(results / CSV_NAME, photos, model.to_dict())
        write_masks(results / ZIP_NAME, results, photos)
        write_report(
            results / REPORT_NAME,
            photos,
            model,
            created_s=claim.created_s,
            mm_per_px=claim.options.get("mm_per_px"),
        )
        if len(bad) < len(photos):
            return ""
        first = bad[0].error
        return (
            first if len(bad) == 1 else f"none of {len(bad)} photos was segmented; first: {first}"
        )

    def remove_photos(self, claim: Claim) -> None:
        """Remove the photos that came in: the job is finished, its results stay."""
        remove_folder(self.folder(claim) / PHOTOS)

    def remove_all(self, claim: Claim) -> None:
        """Remove the files of a job that nobody wants any more."""
        remove_folder(self.folder(claim))

    def _folders(self, claim: Claim) -> tuple[Path, Path]:
        """Return the folders of what came in and of the results."""
        folder = self.folder(claim)
        return folder / PHOTOS, folder / RESULTS

    def _map_work(self) -> MapWork:
        """Load what maps need when the first one comes."""
        if self._maps is None:
            from weedseg.serve.map_work import MapWork

            limits = Limits(self._data, 0, self._settings.quota_bytes)
            self._maps = MapWork(self._settings, limits)
        return self._maps

    def _wanted(self, claim: Claim) -> Callable[[], bool]:
        """Return what tells whether a job is still wanted."""

        def wanted() -> bool:
            with self._database.read() as session:
                status = session.scalar(select(Job.status).where(Job.id == claim.job_id))
            return status in ACTIVE

        return wanted

    def _model(self, claim: Claim) -> ServedModel:
        """Return the model that the job was accepted with.

        Raises:
            ModelFileError: There is another one of that name now.
            RuntimeUnavailableError: There is none of that name here.
        """
        name, sha256 = claim.options["model"], claim.options["model_sha256"]
        known = {model.name: model for model in self._predictor.models.all}
        if name not in known:
            raise RuntimeUnavailableError(
                f"no model '{name}' at this worker",
                "the models of the server",
                "start it with them",
            )
        if known[name].sha256 != sha256:
            raise ModelFileError(
                f"model '{name}' has changed since the job was handed in",
                f"version {sha256[:12]}",
                "hand the job in again",
            )
        return known[name]


def can_map() -> bool:
    """Tell whether the libraries that maps need are installed (``weedseg[maps]``)."""
    return all(importlib.util.find_spec(name) for name in ("rasterio", "pyogrio", "reportlab"))
