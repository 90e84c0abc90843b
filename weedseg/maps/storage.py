"""Mosaics and maps in a store that several machines reach: ``s3://``, ``file://`` and their like.

Needs fsspec, and for ``s3://`` s3fs (extra ``weedseg[cluster]``).

A mosaic is copied to each machine once and read there: windows of a mosaic overlap and are many, so
reading them over the network would move its bytes several times. Results are written here first and
copied to the store when they are whole.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from weedseg.errors import ConfigError, FieldDataError, OutputError, RuntimeUnavailableError
from weedseg.maps.parts import STATE, PartFolder
from weedseg.maps.shards import is_whole

CACHE_VARIABLE = "WEEDSEG_CACHE"
"""Names the folder for copies; by default one in the folder for temporary files."""
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/]|/)")
_ORIGIN = "origin.json"
_CLUSTER = "run: pip install 'weedseg[cluster]'"


def url_of(path: Path | str) -> str | None:
    """Return the URL that a path means, also after `Path` has made ``s3:/a`` of ``s3://a``.

    Args:
        path: What a person gave; None is returned for a plain path.
    """
    text = path if isinstance(path, str) else path.as_posix()
    found = _URL.match(text)
    if found is None:
        return None
    rest = text[found.end() :].lstrip("/")
    return f"{found[1]}:///{rest}" if found[1] == "file" else f"{found[1]}://{rest}"


def fetch(url: str) -> Path:
    """Copy a file of a store to this machine, unless the same version of it is here already.

    Several processes of a machine share the copy. Copies stay until somebody deletes the folder.

    Args:
        url: URL of a file.

    Returns:
        The copy; its time of change is that in the store, where the store knows it.

    Raises:
        ConfigError: No store is known for the URL.
        FieldDataError: The file is not there or cannot be read.
        OutputError: The disk is full or not writable.
        RuntimeUnavailableError: The package for this kind of store is not installed.
    """
    store, place = _open(url)
    with _reading(url):
        about = store.info(place)
        if about["type"] != "file":
            raise FieldDataError(f"{url} is no file", "one GeoTIFF", "give the URL of a file")
        version = f"{url}\n{about['size']}\n{store.ukey(place)}"
    folder = _cache() / hashlib.sha256(version.encode()).hexdigest()[:32]
    copy = folder / (PurePosixPath(place).name or "file")
    with _locked(folder):
        if not copy.exists():
            _download(store, place, copy, url)
            changed_s = _changed_s(about)
            os.utime(copy, (changed_s, changed_s))
            (folder / _ORIGIN).write_text(json.dumps({"url": url}), encoding="utf-8")
    return copy


def origin(path: Path) -> str | None:
    """Return the URL that a copy of `fetch` came from; None for any other file."""
    about = path.parent / _ORIGIN
    if path.parent.parent != _cache() or not about.is_file():
        return None
    url: str = json.loads(about.read_text(encoding="utf-8"))["url"]
    return url


def publish(folder: Path, url: str) -> list[str]:
    """Copy the files of a folder to a store, without hidden ones; ``map.json`` comes last.

    Args:
        folder: A finished map.
        url: Folder in the store; made if missing.

    Returns:
        URLs of the files.

    Raises:
        ConfigError: No store is known for the URL.
        OutputError: The store refuses them.
        RuntimeUnavailableError: The package for this kind of store is not installed.
    """
    store, place = _open(url)
    names = [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    ]
    names.sort(key=lambda name: name == "map.json")
    with _writing(url):
        for name in names:
            _upload(store, folder / name, f"{place}/{name}")
    return [f"{url.rstrip('/')}/{name}" for name in names]


def work_folder(url: str) -> Path:
    """Return where on this machine the files of a folder in a store are made."""
    return _cache() / f"out-{hashlib.sha256(url.encode()).hexdigest()[:32]}"


class StoredParts(PartFolder):
    """Finished shards on this machine and in a store: another machine can go on from there."""

    def __init__(self, out: Path, state: dict[str, Any], url: str, mosaic: str) -> None:
        """Open the folder, and fetch the parts that another machine has finished.

        Args:
            out: The output folder on this machine.
            state: What the parts belong to, see `weedseg.maps.parts.map_state`.
            url: Folder in the store.
            mosaic: The mosaic's name that holds on all machines: its URL.

        Raises:
            ConfigError: No store is known for the URL.
            OutputError: Folder or store cannot be written.
            RuntimeUnavailableError: The package for this kind of store is not installed.
        """
        super().__init__(out, state)
        self._store, place = _open(url)
        self._place, self._url = f"{place}/{self.path.name}", url
        with _writing(url):
            shared = {**state, "mosaic": mosaic}
            if self._stored_state() == shared:
                self._fetch()
            else:
                self._forget()
                _put(self._store, json.dumps(shared).encode(), f"{self._place}/{STATE}")
                for number in sorted(self.done):
                    _put(self._store, self.load(number), self._file_of(number))

    def save(self, number: int, data: bytes) -> None:
        """Keep a part here and in the store.

        Raises:
            OutputError: Disk or store are full or not writable.
        """
        super().save(number, data)
        with _writing(self._url):
            _put(self._store, data, self._file_of(number))

    def delete(self) -> None:
        """Remove the parts here and in the store.

        Raises:
            OutputError: The store refuses.
        """
        super().delete()
        if hasattr(self, "_store"):  # not yet while the folder here is opened
            with _writing(self._url):
                self._forget()

    def _file_of(self, number: int) -> str:
        return f"{self._place}/{number:08d}.part"

    def _stored_state(self) -> Any:
        try:
            return json.loads(self._store.cat_file(f"{self._place}/{STATE}"))
        except (FileNotFoundError, ValueError):
            return None

    def _fetch(self) -> None:
        """Fetch the parts that are not here; what is damaged is left out."""
        for name in self._store.ls(self._place, detail=False):
            number = PurePosixPath(name).stem
            if number.isdecimal() and int(number) not in self.done:
                data = self._store.cat_file(name)
                if is_whole(data):
                    super().save(int(number), data)
                    self.done.add(int(number))

    def _forget(self) -> None:
        if self._store.exists(self._place):
            self._store.rm(self._place, recursive=True)


def _open(url: str) -> tuple[Any, str]:
    """Return the store of a URL and the place in it.

    Raises:
        ConfigError: No store is known for it.
        RuntimeUnavailableError: A package is missing.
    """
    try:
        import fsspec.core

        store, place = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"{url}: {error}", "the package for this kind of store", _CLUSTER
        ) from error
    except ValueError as error:
        raise ConfigError(f"{url}: {error}", "s3:// or file://", "correct the URL") from error
    return store, str(place).rstrip("/")


def _faults() -> tuple[type[Exception], ...]:
    """Return what a store raises when it refuses."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return (OSError,)
    return OSError, BotoCoreError, ClientError


@contextmanager
def _reading(url: str) -> Iterator[None]:
    """Make the faults of a store that is read a sentence.

    Raises:
        FieldDataError: It refuses.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FieldDataError(f"{url} is not there", "a file", "check the URL") from error
    except _faults() as error:
        raise FieldDataError(
            f"{url} cannot be read: {_reason(error)}", "a file", "check URL and access rights"
        ) from error


@contextmanager
def _writing(url: str) -> Iterator[None]:
    """Make the faults of a store that is written a sentence.

    Raises:
        OutputError: It refuses.
    """
    try:
        yield
    except _faults() as error:
        raise OutputError(
            f"{url} cannot be written: {_reason(error)}",
            "a store with room and the right to write",
            "check URL, room and access rights; what is done is kept, run it again",
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _put(store: Any, data: bytes, place: str) -> None:
    """Write a file of a store, whole or not at all."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        _upload(store, Path(file.name), place)


def _upload(store: Any, path: Path, place: str) -> None:
    """Copy a file to a store, whole or not at all: as an object, or by renaming on a disk."""
    if "file" not in store.protocol:
        store.put_file(str(path), place)
        return
    store.makedirs(str(PurePosixPath(place).parent), exist_ok=True)
    store.put_file(str(path), f"{place}.new")
    os.replace(f"{place}.new", place)


def _download(store: Any, place: str, copy: Path, url: str) -> None:
    """Copy a file here, whole or not at all.

    Raises:
        FieldDataError: The store refuses.
        OutputError: The disk is full or not writable.
    """
    part = copy.with_name(f".{copy.name}.part")
    try:
        with _reading(url), store.open(place, "rb") as source:
            try:
                with part.open("wb") as target:
                    while data := source.read(1 << 24):
                        target.write(data)
            except OSError as error:
                raise OutputError(
                    f"{part} cannot be written: {error.strerror or error}",
                    "room for the mosaic",
                    f"free some space, or set {CACHE_VARIABLE} to another folder",
                ) from error
        part.replace(copy)
    finally:
        part.unlink(missing_ok=True)


def _changed_s(about: dict[str, Any]) -> float:
    """Return when a file of a store was changed, s since 1970, whole; 0 if it does not say."""
    changed = about.get("LastModified") or about.get("mtime") or 0
    return float(int(changed.timestamp() if isinstance(changed, datetime) else changed))


def _cache() -> Path:
    """Return the folder for copies, which nobody else may read by default."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given or Path(tempfile.gettempdir()) / f"weedseg-{os.getuid()}").resolve()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time into a folder; it is made if missing.

    Raises:
        OutputError: It cannot be made.
    """
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if CACHE_VARIABLE not in os.environ and folder.parent.stat().st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "belongs to somebody else")
        folder.mkdir(exist_ok=True)
        file = (folder / ".lock").open("w", encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{folder}: {error.strerror}",
            "a folder that can be written",
            f"set {CACHE_VARIABLE} to another folder",
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
