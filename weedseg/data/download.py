"""Download one file: goes on after a drop, believes no length, keeps what is proven only.

Needs httpx. What has come lies in ``NAME.part`` with a note of the file's version beside it, so
that two versions of a file are never joined.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from weedseg.errors import FieldDataError, OutputError
from weedseg.imaging import write_bytes

SPARE_BYTES = 256 << 20
"""What stays free on the disk."""
MAX_STALLED = 4
"""Attempts in a row that bring nothing, after which a download is given up."""
MAX_ATTEMPTS = 500
_BLOCK_BYTES = 1 << 20
_PATIENCE_S = httpx.Timeout(60, connect=20)
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})

Report = Callable[[str, int, "int | None"], None]
"""Told the file's name, how much has come and how much there will be, bytes."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file to download."""

    name: str
    url: str
    num_bytes: int | None = None
    """Its published size; None is unknown."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """sha256 and md5 as published, those that are known."""


class _StalledError(Exception):
    """An attempt ended before the file did."""


class _StaleError(Exception):
    """What has come so far is not part of what the server offers now."""


def new_client() -> httpx.Client:
    """Return a client that follows redirects and trusts no compression on the way."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "weedseg"}
    return httpx.Client(follow_redirects=True, timeout=_PATIENCE_S, headers=headers)


def download(
    remote: RemoteFile, folder: Path, client: httpx.Client, report: Report, pause_s: float = 1.0
) -> str:
    """Bring a file to ``folder/NAME``.

    Args:
        remote: What to download.
        folder: Where to; it exists.
        client: HTTP client.
        report: Called now and then.
        pause_s: First pause after an attempt that brought nothing; it doubles.

    Returns:
        The SHA-256 of the file.

    Raises:
        FieldDataError: The server does not have it, keeps breaking off, or serves other bytes.
        OutputError: There is no room, or the folder cannot be written.
    """
    part = folder / f"{remote.name}.part"
    try:
        sha256, wrong = _bring_and_compare(remote, part, client, report, pause_s)
        if wrong:  # bytes may have changed on the way: once more, from the start
            sha256, wrong = _bring_and_compare(remote, part, client, report, pause_s)
        if not wrong:
            os.replace(part, folder / remote.name)
            _note(part).unlink(missing_ok=True)
            return sha256
    except OSError as error:
        raise OutputError(
            f"{part}: {error.strerror or error}", "room", "free some space and fetch again"
        ) from error
    raise FieldDataError(
        f"{remote.url} has {wrong}", "the published checksum", "do not use it; ask its publisher"
    )


def _bring_and_compare(
    remote: RemoteFile, part: Path, client: httpx.Client, report: Report, pause_s: float
) -> tuple[str, str]:
    """Download and compare; return the SHA-256, and the digest that is wrong or ''.

    What is wrong is deleted.
    """
    _bring(remote, part, client, report, pause_s)
    found = digests_of(part)
    for kind, text in remote.digests.items():
        if found[kind] != text.lower():
            forget(part)
            return found["sha256"], f"{kind} {found[kind]}"
    return found["sha256"], ""


def forget(part: Path) -> None:
    """Delete what has come of a file."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def digests_of(path: Path) -> dict[str, str]:
    """Return sha256 and md5 of a file."""
    kinds = {
        "sha256": hashlib.sha256(),
        "md5": hashlib.new("md5", usedforsecurity=False),  # some publishers give nothing better
    }
    with path.open("rb") as file:
        for block in iter(lambda: file.read(_BLOCK_BYTES), b""):
            for digest in kinds.values():
                digest.update(block)
    return {kind: digest.hexdigest() for kind, digest in kinds.items()}


def _bring(
    remote: RemoteFile, part: Path, client: httpx.Client, report: Report, pause_s: float
) -> None:
    """Try until the file is whole.

    Raises:
        FieldDataError: It never is.
    """
    stalled, reason = 0, ""
    for _ in range(MAX_ATTEMPTS):
        before = _size(part)
        try:
            _attempt(remote, part, client, report)
            return
        except _StaleError:
            forget(part)
            stalled += 1
        except (httpx.RequestError, httpx.InvalidURL, _StalledError) as error:
            reason = str(error) or type(error).__name__
            stalled = 0 if _size(part) > before else stalled + 1
        if stalled > MAX_STALLED:
            break
        time.sleep(pause_s * 2**stalled)
    raise FieldDataError(
        f"{remote.url} breaks off after {_size(part)} bytes ({' '.join(reason.split())[:200]})",
        f"{remote.num_bytes or 'all'} bytes",
        "fetch again later: it goes on where it was",
    )


def _attempt(remote: RemoteFile, part: Path, client: httpx.Client, report: Report) -> None:
    """Ask once, for what is missing.

    Raises:
        _StalledError: The server has no time, or the file ends too early.
        _StaleError: The part is of another version.
    """
    start = _size(part)
    version = _version(part)
    if start and not version and not remote.digests:
        raise _StaleError
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and version:
        headers["If-Range"] = version
    with client.stream("GET", remote.url, headers=headers) as response:
        start, total = _understand(remote, response, start)
        _check_room(part, (total or 0) - start)
        if not start:
            write_bytes(_note(part), json.dumps(_validator(response)).encode())
        with part.open("ab" if start else "wb") as file:
            for block in response.iter_raw():  # as it comes: a drop loses nothing
                file.write(block)
                start += len(block)
                if total is not None and start > total:
                    raise _StaleError
                _check_room(part, 0)
                report(remote.name, start, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and start < total:
        raise _StalledError(f"{start} of {total} bytes")


def _understand(remote: RemoteFile, response: httpx.Response, start: int) -> tuple[int, int | None]:
    """Return from where on the answer goes, and the size of the whole file if it is known.

    Raises:
        FieldDataError: The file is not there, of another size, or sent over a worse channel.
        _StalledError: The server asks to come later.
    """
    code = response.status_code
    if remote.url.startswith("https:") and response.url.scheme != "https":
        raise FieldDataError(f"{remote.url} leads to {response.url}", "https", "report this")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise FieldDataError(f"{remote.url} is sent compressed", "the file itself", "report this")
    if code in _LATER:
        raise _StalledError(f"HTTP {code}")
    if code != 200 and not (start and code in (206, 416)):
        raise FieldDataError(
            f"{remote.url} answers HTTP {code}", "the file", "see the source of the data set"
        )
    start, total = _span(response, start)
    total = remote.num_bytes if total is None else total
    if remote.num_bytes is not None and total != remote.num_bytes:
        raise FieldDataError(
            f"{remote.url} has {total} bytes", f"{remote.num_bytes}", "ask its publisher"
        )
    return start, total


def _span(response: httpx.Response, start: int) -> tuple[int, int | None]:
    """Return where the answer begins and the size of the whole file, None if it is not said.

    Raises:
        _StaleError: The answer is another part than the one asked for.
    """
    said = response.headers.get("Content-Range", "")
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdigit() else None
    if response.status_code == 416 and said == f"bytes */{start}":
        return start, start
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", said)
    if response.status_code != 206 or span is None or int(span[1]) != start:
        raise _StaleError
    return start, None if span[2] == "*" else int(span[2])


def _check_room(part: Path, num_bytes: int) -> None:
    """Check that bytes fit on the disk.

    Raises:
        OutputError: They do not.
    """
    free = shutil.disk_usage(part.parent).free
    if free < num_bytes + SPARE_BYTES:
        raise OutputError(
            f"{free >> 20} MiB free for {part.parent}",
            f"{(num_bytes + SPARE_BYTES) >> 20} MiB",
            "free some space and fetch again",
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _version(part: Path) -> str:
    """Return what the server calls the version that has come so far; '' is unknown."""
    try:
        return str(json.loads(_note(part).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return ""


def _validator(response: httpx.Response) -> Any:
    """Return the strong ETag or else the time of change, for If-Range."""
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified", "")
