"""Bring a published data set from where its manifest says: licence, files, unpacking.

Where no checksum is published, the first download records one in ``downloads/downloads.json``, and
later runs compare with that.
"""

from __future__ import annotations

import glob
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from weedseg.data.download import (
    SPARE_BYTES,
    RemoteFile,
    Report,
    digests_of,
    download,
    forget,
    new_client,
)
from weedseg.data.facts import find_manifest
from weedseg.data.folders import new_folder
from weedseg.data.unpack import unpack
from weedseg.errors import ConfigError, FieldDataError, OutputError
from weedseg.imaging import write_bytes
from weedseg.toml_files import read_toml

DOWNLOADS, UNPACKED, RECORD = "downloads", "unpacked", "downloads.json"
UNKNOWN = "unknown"
_NAME = re.compile(r"[\w][\w.()+-]{0,100}", re.ASCII)
_DIGESTS = {"sha256": 64, "md5": 32}


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a manifest says of getting a data set."""

    name: str
    title: str
    source: str
    licence: str
    citation: str
    files: tuple[RemoteFile, ...]
    archives: tuple[str, ...]
    """Files to unpack; of a RAR in parts, the first."""
    root: str
    """Where the data set begins in the unpacked folder; ``*`` is its only folder."""
    num_bytes: int
    """Unpacked size; 0 is unknown."""


def read_published(name: str) -> Published:
    """Read the manifest of a data set.

    Args:
        name: The data set, such as ``cwfid``, or a TOML file of the same form.

    Returns:
        What it says.

    Raises:
        ConfigError: There is no such data set, it cannot be downloaded, or the file is wrong.
    """
    path = Path(name) if name.endswith(".toml") else find_manifest(name)
    values = read_toml(path)
    said = values.get("fetch")
    if not isinstance(said, Mapping) or not said.get("files"):
        how = said.get("how", "") if isinstance(said, Mapping) else ""
        raise ConfigError(
            f"{values.get('title', name)} cannot be downloaded by a program",
            "addresses in its manifest",
            str(how or f"see {values.get('source', path)}"),
        )
    try:
        files = tuple(_remote(row) for row in said["files"])
        archives = tuple(str(text) for text in said["archives"])
        facts = {k: str(values[k]) for k in ("name", "title", "source", "licence", "citation")}
        published = Published(
            files=files,
            archives=archives,
            root=str(said.get("root", ".")),
            num_bytes=int(said.get("unpacked_bytes", 0)),
            **facts,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path} with a wrong {error}", "a whole manifest", "correct it"
        ) from error
    names = [file.name for file in files]
    if len(set(names)) < len(names) or not set(archives) <= set(names) or ".." in published.root:
        raise ConfigError(f"{path}: files {names}", "each once, archives among them", "correct it")
    return published


def licence_text(published: Published) -> str:
    """Say under which terms a data set comes."""
    return (
        f"{published.title}\nsource:   {published.source}\n"
        f"licence:  {published.licence}\ncitation: {published.citation}"
    )


def fetch(
    published: Published,
    out: Path,
    *,
    accepted: bool,
    report: Report = lambda name, done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Download and unpack a data set; what is there already is not fetched again.

    Args:
        published: What to fetch.
        out: Folder; ``downloads`` and ``unpacked`` are made in it.
        accepted: Whether the person accepts the licence.
        report: Told how far a file is.
        say: Told what happens, in sentences.

    Returns:
        The folder that an importer reads.

    Raises:
        ConfigError: The licence is not accepted.
        FieldDataError: A file cannot be had, is damaged or not what was published.
        OutputError: There is no room, or the folder cannot be written.
        RuntimeUnavailableError: A program that unpacks RAR is missing.
    """
    if not accepted:
        raise ConfigError(
            f"the licence '{published.licence}' is not accepted",
            f"that you have read it at {published.source}",
            "add --accept-licence",
        )
    downloads, unpacked = out / DOWNLOADS, out / UNPACKED
    try:
        downloads.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{downloads}: {error.strerror}", "a folder", "choose another") from error
    record = _read_record(downloads / RECORD)
    record["licence"] = {"name": published.licence, "accepted": True}
    _check_room(published, downloads, unpacked)
    with new_client() as client:
        for remote in published.files:
            row = _have(remote, downloads, record["files"].get(remote.name))
            if row is None:
                say(f"downloading {remote.url}")
                row = _row(remote, downloads, download(remote, downloads, client, report))
            say(f"{remote.name}: sha256 {row['sha256']}, {row['checksum']}")
            record["files"][remote.name] = row
            write_bytes(downloads / RECORD, f"{json.dumps(record, indent=1)}\n".encode())
    if not unpacked.is_dir():
        with new_folder(unpacked) as made:
            for name in published.archives:
                say(f"unpacking {name}")
                unpack(downloads / name, made)
    return _root(unpacked, published.root)


def _remote(row: Mapping[str, Any]) -> RemoteFile:
    """Read one file of a manifest.

    Raises:
        ValueError: A value is of the wrong form.
    """
    url, name = str(row["url"]), str(row.get("name") or str(row["url"]).rpartition("/")[2])
    digests = {k: str(row[k]) for k in _DIGESTS if str(row.get(k, UNKNOWN)) != UNKNOWN}
    for kind, text in digests.items():
        if not re.fullmatch(rf"[0-9a-fA-F]{{{_DIGESTS[kind]}}}", text):
            raise ValueError(f"{kind} '{text}'")
    if not _NAME.fullmatch(name) or name == RECORD:
        raise ValueError(f"name '{name}'")
    address = urlsplit(url)
    near = address.hostname in ("127.0.0.1", "localhost", "::1")
    if address.scheme != "https" and not (address.scheme == "http" and (digests or near)):
        raise ValueError(f"address '{url}': https, or http with a checksum")
    num_bytes = int(row["bytes"]) if "bytes" in row else None
    return RemoteFile(name=name, url=url, num_bytes=num_bytes, digests=digests)


def _read_record(path: Path) -> dict[str, Any]:
    """Read what earlier runs recorded.

    Raises:
        FieldDataError: It is damaged.
    """
    if not path.is_file():
        return {"files": {}}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"files": {str(k): dict(v) for k, v in record["files"].items()}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FieldDataError(
            f"{path} cannot be understood", "checksums of earlier downloads", "delete it"
        ) from error


def _have(
    remote: RemoteFile, downloads: Path, row: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Return the row of a file that is there already and as published or recorded.

    Raises:
        FieldDataError: It is there, and differs.
    """
    path = downloads / remote.name
    if not path.is_file():
        return None
    forget(path.with_name(f"{path.name}.part"))
    found = digests_of(path)
    recorded = {"sha256": str(row["sha256"])} if row and "sha256" in row else {}
    for kind, text in {**recorded, **remote.digests}.items():
        if found[kind] != text.lower():
            raise FieldDataError(
                f"{path} has {kind} {found[kind]}", text, "delete it and fetch again"
            )
    return _row(remote, downloads, found["sha256"])


def _row(remote: RemoteFile, downloads: Path, sha256: str) -> dict[str, Any]:
    known = " and ".join(remote.digests)
    return {
        "url": remote.url,
        "bytes": (downloads / remote.name).stat().st_size,
        "sha256": sha256,
        "checksum": f"as published ({known})" if known else "recorded here, none is published",
    }


def _check_room(published: Published, downloads: Path, unpacked: Path) -> None:
    """Check that the disk holds what is still to come, as far as sizes are published.

    Raises:
        OutputError: It does not.
    """
    lying = {path.name: path.stat().st_size for path in downloads.iterdir()}
    needed = 0 if unpacked.is_dir() else published.num_bytes
    for file in published.files:
        have = lying.get(file.name, lying.get(f"{file.name}.part", 0))
        needed += max((file.num_bytes or 0) - have, 0)
    free = shutil.disk_usage(downloads).free
    if needed and free < needed + SPARE_BYTES:
        raise OutputError(
            f"{free >> 20} MiB free for {downloads.parent}",
            f"{(needed + SPARE_BYTES) >> 20} MiB",
            "free some space or choose another --out",
        )


def _root(unpacked: Path, root: str) -> Path:
    """Return where the data set begins.

    Raises:
        FieldDataError: There is no such folder.
    """
    found = [p for p in sorted(glob.glob(str(unpacked / root))) if Path(p).is_dir()]
    if len(found) != 1:
        raise FieldDataError(
            f"{len(found)} folders '{root}' in {unpacked}", "one", f"delete {unpacked}, fetch again"
        )
    return Path(found[0])
