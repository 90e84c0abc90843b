"""Uploads in pieces that go on after a dropped connection: the tus protocol, version 1.0.0.

Announce a file with POST, send it with one PATCH or many, ask with HEAD how far it got.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from weedseg.serve.auth import RESPONSES, Principal, signed_in
from weedseg.serve.job_schemas import ID_PATTERN
from weedseg.serve.problems import Problem, problem_responses
from weedseg.serve.services import Services, services_of
from weedseg.serve.uploads import CHECKSUMS, Checksum, Upload, UploadWriter

VERSION = "1.0.0"
EXTENSIONS = "creation,expiration,termination,checksum"
PIECE_TYPE = "application/offset+octet-stream"
_BUFFER_BYTES = 1 << 20
_DRAINED_BYTES = 64 << 20
_MISMATCH: dict[int | str, dict[str, Any]] = {
    460: {**problem_responses(400)[400], "description": "Checksum mismatch"}
}

Owner = Annotated[Principal, Depends(signed_in("jobs"))]
Work = Annotated[Services, Depends(services_of)]
Id = Annotated[str, Path(pattern=ID_PATTERN, description="id of the upload")]


def _speaks_tus(
    tus_resumable: Annotated[str, Header(description=f"always {VERSION}")] = "",
) -> None:
    """Refuse other versions of the protocol.

    Raises:
        Problem: The header is missing or names another version.
    """
    if tus_resumable != VERSION:
        raise Problem(
            412,
            "Another protocol version",
            f"header Tus-Resumable is '{tus_resumable[:20]}'; expected {VERSION}; send it",
            {"Tus-Version": VERSION},
        )


router = APIRouter(prefix="/v1/uploads", tags=["uploads"])
tus = [Depends(_speaks_tus)]


class UploadBody(BaseModel):
    """An upload."""

    id: str = Field(examples=["q83vEjRWeJASNFZ4kBI0Vg"])
    name: str = Field(examples=["plot-7.jpg"])
    size_bytes: int = Field(examples=[4_812_345])
    offset_bytes: int = Field(description="bytes that arrived", examples=[4_812_345])
    complete: bool
    created: datetime
    expires: datetime = Field(description="removed then, unless something comes before")


class UploadList(BaseModel):
    """An owner's uploads, the newest first."""

    uploads: list[UploadBody]


def _body(services: Services, upload: Upload) -> UploadBody:
    return UploadBody(
        id=upload.id,
        name=upload.name,
        size_bytes=upload.size_bytes,
        offset_bytes=upload.offset_bytes,
        complete=upload.complete,
        created=_moment(upload.created_s),
        expires=_moment(services.uploads.expires_s(upload)),
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _headers(services: Services, upload: Upload) -> dict[str, str]:
    expires = format_datetime(_moment(services.uploads.expires_s(upload)), usegmt=True)
    return {
        "Tus-Resumable": VERSION,
        "Upload-Offset": str(upload.offset_bytes),
        "Upload-Expires": expires,
        "Cache-Control": "no-store",
    }


@router.options("", status_code=204)
def describe(services: Work) -> Response:
    """Say which parts of the tus protocol there are."""
    return Response(
        status_code=204,
        headers={
            "Tus-Resumable": VERSION,
            "Tus-Version": VERSION,
            "Tus-Extension": EXTENSIONS,
            "Tus-Max-Size": str(services.uploads.max_bytes),
            "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
        },
    )


@router.get("", responses=RESPONSES)
def list_uploads(
    services: Work,
    who: Owner,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=1_000_000_000)] = 0,
) -> UploadList:
    """List your uploads."""
    found = services.uploads.list(who.owner, limit, offset)
    return UploadList(uploads=[_body(services, upload) for upload in found])


@router.post(
    "",
    status_code=201,
    dependencies=tus,
    responses={**RESPONSES, **problem_responses(400, 412, 413, 507)},
)
def create(
    services: Work,
    who: Owner,
    upload_length: Annotated[
        int, Header(ge=0, le=1 << 53, description="size of the file, bytes", examples=[4812345])
    ],
    upload_metadata: Annotated[
        str, Header(max_length=4096, description="filename and its name in base64")
    ] = "",
) -> Response:
    """Announce a file; send its bytes to the address in Location."""
    name = _metadata(upload_metadata).get("filename", "photo")
    upload = services.uploads.create(who.owner, name, upload_length)
    headers = {"Location": f"{router.prefix}/{upload.id}", **_headers(services, upload)}
    return Response(status_code=201, headers=headers)


@router.head(
    "/{upload_id}",
    dependencies=tus,
    responses={**RESPONSES, **problem_responses(404, 412)},
)
def ask(services: Work, who: Owner, upload_id: Id) -> Response:
    """Ask how many bytes arrived, to go on there."""
    upload = services.uploads.get(who.owner, upload_id)
    name = base64.b64encode(upload.name.encode()).decode()
    return Response(
        headers={
            **_headers(services, upload),
            "Upload-Length": str(upload.size_bytes),
            "Upload-Metadata": f"filename {name}",
        }
    )


@router.get("/{upload_id}", responses={**RESPONSES, **problem_responses(404)})
def show(services: Work, who: Owner, upload_id: Id) -> UploadBody:
    """Show one upload."""
    return _body(services, services.uploads.get(who.owner, upload_id))


@router.patch(
    "/{upload_id}",
    status_code=204,
    dependencies=tus,
    responses={
        **RESPONSES,
        **problem_responses(400, 404, 409, 412, 413, 415, 423, 507),
        **_MISMATCH,
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {PIECE_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def append(
    request: Request,
    services: Work,
    who: Owner,
    upload_id: Id,
    upload_offset: Annotated[int, Header(ge=0, le=1 << 53, description="where the bytes go")],
    upload_checksum: Annotated[str, Header(max_length=200, description="sha1 or sha256")] = "",
) -> Response:
    """Send bytes; what arrived counts even if the connection drops.

    Raises:
        Problem: The offset, the kind or the checksum of the piece is wrong, or there is no room.
    """
    uploads = services.uploads
    try:
        if request.headers.get("content-type", "") != PIECE_TYPE:
            raise Problem(415, "Unsupported media type", f"expected {PIECE_TYPE}; send it as such")
        checksum = _checksum(upload_checksum)
        writer = await run_in_threadpool(
            uploads.open, who.owner, upload_id, upload_offset, checksum
        )
    except Problem:
        await _drain(request)
        raise
    try:
        await _receive(request, writer)
    finally:
        await run_in_threadpool(writer.close)
    if not writer.matches:
        raise Problem(460, "Checksum mismatch", "the bytes changed on the way; send them again")
    upload = await run_in_threadpool(uploads.get, who.owner, upload_id)
    return Response(status_code=204, headers=_headers(services, upload))


async def _drain(request: Request) -> None:
    """Read what a refused client still sends, up to a limit.

    A connection that is closed while a client writes may cost it the answer.
    """
    left = _DRAINED_BYTES
    with contextlib.suppress(ClientDisconnect):
        async for piece in request.stream():
            left -= len(piece)
            if left < 0:
                return


async def _receive(request: Request, writer: UploadWriter) -> None:
    """Write what comes, a buffer at a time; a dropped connection is an end like any other."""
    waiting = bytearray()
    try:
        async for piece in request.stream():
            waiting += piece
            if len(waiting) >= _BUFFER_BYTES:
                ready, waiting = bytes(waiting), bytearray()
                await run_in_threadpool(writer.write, ready)
    except ClientDisconnect:
        return  # nobody waits for an answer
    finally:
        if waiting:
            await run_in_threadpool(writer.write, bytes(waiting))


@router.delete(
    "/{upload_id}",
    status_code=204,
    dependencies=tus,
    responses={**RESPONSES, **problem_responses(404, 412)},
)
def remove(services: Work, who: Owner, upload_id: Id) -> Response:
    """Remove an upload; jobs that were given it go on."""
    services.uploads.remove(who.owner, upload_id)
    return Response(status_code=204, headers={"Tus-Resumable": VERSION})


def _metadata(header: str) -> dict[str, str]:
    """Decode ``Upload-Metadata``: pairs of a key and a value in base64.

    Raises:
        Problem: It is none.
    """
    values = {}
    for pair in filter(None, re.split(r"\s*,\s*", header.strip())):
        key, _, coded = pair.partition(" ")
        try:
            values[key] = base64.b64decode(coded, validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise Problem(
                400, "Bad request", f"Upload-Metadata: '{key[:40]}' is no UTF-8 text in base64"
            ) from error
    return values


def _checksum(header: str) -> Checksum | None:
    """Decode ``Upload-Checksum``.

    Raises:
        Problem: The algorithm is unknown or the value is no base64.
    """
    if not header:
        return None
    algorithm, _, coded = header.partition(" ")
    try:
        digest = base64.b64decode(coded, validate=True)
    except binascii.Error:
        digest = b""
    if algorithm not in CHECKSUMS or not digest:
        raise Problem(
            400, "Bad request", f"Upload-Checksum: expected one of {', '.join(CHECKSUMS)} in base64"
        )
    return Checksum(algorithm=algorithm, digest=digest)
