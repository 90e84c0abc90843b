"""The web page: one HTML file with its styles and modules; it loads nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from string import Template
from typing import Any

from fastapi import FastAPI, Response
from starlette.staticfiles import StaticFiles

from weedseg.serve.job_work import can_map
from weedseg.serve.settings import Settings

FOLDER = Path(__file__).parents[1] / "web"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",  # ask each time: a newer service has a newer page
}
"""Of the page and its files."""

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Said here: what a machine thinks of these endings differs."""
_FORMATS = {
    "JPEG": (".jpg", ".jpeg", "image/jpeg"),
    "PNG": (".png", "image/png"),
    "TIFF": (".tif", ".tiff", "image/tiff"),
    "WebP": (".webp", "image/webp"),
}
_HEIC = (".heic", ".heif", "image/heic", "image/heif")
_ZIP = (".zip", "application/zip")


class _Files(StaticFiles):
    """Sends the files of the page with their headers."""

    def file_response(self, full_path: str | os.PathLike[str], *others: Any) -> Response:
        """Send one file, or say that the browser has it already."""
        response = super().file_response(full_path, *others)
        response.headers.update(HEADERS)
        kind = _TYPES.get(Path(full_path).suffix)
        if kind:
            response.headers["Content-Type"] = kind
        return response


def add_pages(app: FastAPI, settings: Settings) -> None:
    """Add the page at ``/`` and its files below ``/web``.

    Args:
        app: Of the service.
        settings: What the page tells about the service.
    """
    html = index_html(settings)

    def page() -> Response:
        return Response(html, media_type="text/html", headers=HEADERS)

    app.add_api_route("/", page, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/web", _Files(directory=FOLDER))


def index_html(settings: Settings) -> str:
    """Fill in what the page has to know before anybody is signed in.

    Args:
        settings: Of the service.

    Returns:
        HTML with the formats that this service reads and the largest upload.
    """
    formats = dict(_FORMATS)
    if importlib.util.find_spec("pi_heif") is not None:
        formats["HEIC"] = _HEIC
    names = list(formats)
    accept = [part for kinds in formats.values() for part in kinds]
    page = Template((FOLDER / "index.html").read_text(encoding="utf-8"))
    return page.substitute(
        accept=",".join([*accept, *_ZIP]),
        formats=f"{', '.join(names[:-1])} or {names[-1]}",
        maps=str(can_map()).lower(),
        max_upload_bytes=settings.max_upload_bytes,
    )
