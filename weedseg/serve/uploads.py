"""Uploads that come in pieces and go on after a dropped connection or a killed server.

An offset is told to a client only when the bytes before it are on the disk and the row in the
database says so. What lies in the file behind that offset is cut off when the upload goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePosixPath

from sqlalchemy import BigInteger, Text, and_, delete, func, or_, select, update
from sqlalchemy.orm import Mapped, mapped_column

from weedseg.serve.database import Base, Database
from weedseg.serve.files import make_folder, sync, uploads_folder, writing
from weedseg.serve.limits import Limits
from weedseg.serve.problems import Problem, not_found

COMMIT_BYTES = 16 << 20
"""The offset moves on at least this often, so that a killed server loses no more."""
UNFINISHED_HOURS = 24.0
"""An upload that nobody goes on with is removed after this time."""
CHECKSUMS = ("sha1", "sha256")
MAX_NAME_LENGTH = 200


class Upload(Base):
    """One file that comes in; times are seconds since 1970."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(index=True)
    name: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    offset_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    created_s: Mapped[float]
    changed_s: Mapped[float] = mapped_column(index=True)

    @property
    def complete(self) -> bool:
        """Whether every byte has come."""
        return self.offset_bytes == self.size_bytes


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """What a client says that a piece hashes to."""

    algorithm: str
    digest: bytes


class UploadStore:
    """Uploads of all owners: rows in the database, bytes in the data folder."""

    folder = "uploads"
    """Name of the folder of an owner's uploads."""

    def __init__(
        self,
        database: Database,
        data: Path,
        limits: Limits,
        *,
        max_bytes: int,
        retention_days: float,
    ) -> None:
        """Remember where things are.

        Args:
            database: Holds the rows.
            data: The data folder.
            limits: Is asked for room.
            max_bytes: Largest upload.
            retention_days: A complete upload is kept so long.
        """
        self._database = database
        self._data = data
        self._limits = limits
        self._retention_s = retention_days * 86400
        self.max_bytes = max_bytes

    def create(self, owner: str, name: str, size_bytes: int) -> Upload:
        """Announce an upload.

        Raises:
            Problem: It is too large, or the owner's quota or the disk is full.
            OutputError: The disk is full or not writable.
        """
        if size_bytes > self.max_bytes:
            raise Problem(
                413,
                "Upload too large",
                f"the upload has {size_bytes} bytes; expected at most {self.max_bytes}; "
                "send several smaller files",
            )
        now = time.time()
        upload = Upload(
            id=secrets.token_urlsafe(16),
            owner=owner,
            name=clean_name(name),
            size_bytes=size_bytes,
            offset_bytes=0,
            created_s=now,
            changed_s=now,
        )
        path = self.path(owner, upload.id)
        make_folder(path.parent)
        with self._database.begin() as session:
            rest = select(func.sum(Upload.size_bytes - Upload.offset_bytes))
            promised_bytes = session.scalar(rest.where(Upload.owner == owner)) or 0
            self._limits.demand(owner, size_bytes, int(promised_bytes))
            with writing(path):  # the file is there before the row speaks of it
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                sync(path.parent)
            session.add(upload)
        return upload

    def expires_s(self, upload: Upload) -> float:
        """Return when an upload is removed unless something comes, s since 1970."""
        return upload.changed_s + (
            self._retention_s if upload.complete else UNFINISHED_HOURS * 3600
        )

    def path(self, owner: str, upload_id: str) -> Path:
        """Return where the bytes of an upload lie."""
        return uploads_folder(self._data, owner) / upload_id

    def get(self, owner: str, upload_id: str) -> Upload:
        """Find an upload.

        Raises:
            Problem: This owner has none of that id.
        """
        with self._database.read() as session:
            found = session.scalar(
                select(Upload).where(Upload.owner == owner, Upload.id == upload_id)
            )
        if found is None or self.expires_s(found) < time.time():
            raise not_found("upload")
        return found

    def list(self, owner: str, limit: int, offset: int) -> Sequence[Upload]:
        """List an owner's uploads, the newest first."""
        with self._database.read() as session:
            return session.scalars(
                select(Upload)
                .where(Upload.owner == owner)
                .order_by(Upload.created_s.desc(), Upload.id)
                .limit(limit)
                .offset(offset)
            ).all()

    def open(
        self, owner: str, upload_id: str, offset: int, checksum: Checksum | None = None
    ) -> UploadWriter:
        """Go on with an upload; close what this returns, then what was written counts.

        Args:
            owner: Whose it is.
            upload_id: Which.
            offset: Where the client believes it is, bytes.
            checksum: Of the bytes that come now; without a match none of them counts.

        Raises:
            Problem: There is no such upload, its offset is another one, or somebody else is
                writing to it.
            OutputError: The disk is full or not writable.
        """
        self.get(owner, upload_id)
        path = self.path(owner, upload_id)
        with writing(path), ExitStack() as on_failure:
            file = on_failure.enter_context(path.open("r+b", buffering=0))
            _lock(file)
            upload = self.get(owner, upload_id)  # the last writer may have moved it
            if offset != upload.offset_bytes:
                raise Problem(
                    409,
                    "Wrong offset",
                    f"the request starts at byte {offset}; expected {upload.offset_bytes}; "
                    "ask for the offset with HEAD and go on there",
                )
            file.truncate(offset)
            file.seek(offset)
            on_failure.pop_all()
            return UploadWriter(file, upload, self._move, checksum)

    def _move(self, upload: Upload, offset: int) -> None:
        """Write a new offset into the database."""
        with self._database.begin() as session:
            session.execute(
                update(Upload)
                .where(Upload.id == upload.id)
                .values(offset_bytes=offset, changed_s=time.time())
            )

    def remove(self, owner: str, upload_id: str) -> None:
        """Remove an upload; jobs that have begun with it keep their own name of the file.

        Raises:
            Problem: This owner has none of that id.
        """
        self.get(owner, upload_id)
        with self._database.begin() as session:
            session.execute(delete(Upload).where(Upload.owner == owner, Upload.id == upload_id))
        self.path(owner, upload_id).unlink(missing_ok=True)

    def expire(self, before_s: float) -> int:
        """Remove uploads last changed before a moment, and unfinished ones a day old.

        Returns:
            How many.
        """
        unfinished_s = time.time() - UNFINISHED_HOURS * 3600
        late = or_(
            Upload.changed_s < before_s,
            and_(Upload.offset_bytes < Upload.size_bytes, Upload.changed_s < unfinished_s),
        )
        with self._database.begin() as session:
            rows = session.execute(
                delete(Upload).where(late).returning(Upload.owner, Upload.id)
            ).all()
        for owner, upload_id in rows:
            self.path(owner, upload_id).unlink(missing_ok=True)
        return len(rows)

    def known(self, owner: str) -> set[str]:
        """Return the ids of an owner's uploads."""
        with self._database.read() as session:
            return set(session.scalars(select(Upload.id).where(Upload.owner == owner)))


class UploadWriter:
    """Appends to one upload, which nobody else can do until it is closed."""

    def __init__(
        self,
        file: FileIO,
        upload: Upload,
        move: Callable[[Upload, int], None],
        checksum: Checksum | None,
    ) -> None:
        """Start behind the bytes that are there.

        Args:
            file: At the right place, locked.
            upload: What it belongs to.
            move: Makes a new offset durable.
            checksum: What all bytes written here have to hash to.
        """
        self._file = file
        self._upload = upload
        self._move = move
        self._checksum = checksum
        self._hash = hashlib.new(checksum.algorithm) if checksum else None
        self._durable = self._written = upload.offset_bytes

    def write(self, piece: bytes) -> None:
        """Append bytes.

        Raises:
            Problem: More comes than was announced.
            OutputError: The disk is full.
        """
        if self._written + len(piece) > self._upload.size_bytes:
            raise Problem(
                413,
                "Upload too large",
                f"more than the {self._upload.size_bytes} bytes that were announced; "
                "expected no more; announce a new upload",
            )
        view = memoryview(piece)
        with writing(Path(self._upload.name)):
            while view:
                view = view[self._file.write(view) :]
        self._written += len(piece)
        if self._hash is not None:
            self._hash.update(piece)
        elif self._written - self._durable >= COMMIT_BYTES:
            self._commit()

    def close(self) -> None:
        """Make what was written count, unless it has another checksum; free the upload.

        Raises:
            OutputError: The disk is full or fails.
        """
        with self._file:
            if self._written > self._durable and self.matches:
                self._commit()

    def _commit(self) -> None:
        with writing(Path(self._upload.name)):
            os.fsync(self._file.fileno())
        self._move(self._upload, self._written)
        self._durable = self._written

    @property
    def matches(self) -> bool:
        """Whether the bytes have the checksum that the client gave; true without one."""
        if self._checksum is None or self._hash is None:
            return True
        return hmac.compare_digest(self._hash.digest(), self._checksum.digest)


def _lock(file: FileIO) -> None:
    """Keep other writers out until the file is closed, also those of other processes.

    Raises:
        Problem: Somebody else is writing.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Problem(
            423,
            "Upload in use",
            "another connection is writing to this upload; expected one; wait for its end",
            {"Retry-After": "2"},
        ) from error


def clean_name(name: str) -> str:
    """Return a file name to show: no folders, nothing unprintable, not too long."""
    last = PurePosixPath(name.replace("\\", "/")).name
    shown = "".join(c for c in last if c.isprintable()).strip()
    stem, dot, end = shown.rpartition(".")
    if dot and len(shown) > MAX_NAME_LENGTH:
        shown = f"{stem[: MAX_NAME_LENGTH - len(end[:10]) - 1]}.{end[:10]}"
    return shown[:MAX_NAME_LENGTH] or "photo"
