"""Read a model file safely: one self-describing ONNX file that cannot pull in another file.

ONNX Runtime is only ever given the bytes that were checked here, never a path: external data have
no folder to lie in, and the file cannot change between check and use.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from weedseg.edge.metadata import ModelMetadata, parse_metadata
from weedseg.edge.onnx_wire import CHECKSUM_KEY, KNOWN_DOMAINS, inspect_onnx
from weedseg.errors import ModelFileError

MAX_MODEL_BYTES = 512 << 20
"""Larger model files are refused, bytes."""
_MAX_CHECKSUM_BYTES = 1 << 20
# Not blocking: opening a named pipe must not wait for a writer.
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A model file that passed every check."""

    name: str
    data: bytes
    sha256: str
    metadata: ModelMetadata


def read_model_file(
    model: Path | str | bytes, max_bytes: int = MAX_MODEL_BYTES, sha256: str | None = None
) -> ModelFile:
    """Read a model and refuse everything that weedseg should not run.

    Its content is compared with the checksum that the export put into it, a file also with
    ``<file>.sha256`` and with its line in ``SHA256SUMS`` in the same folder, if there are any.

    Args:
        model: Path of the ONNX file, or its bytes.
        max_bytes: Largest size that is read.
        sha256: Checksum that the caller demands, hexadecimal.

    Returns:
        The bytes with what they say about themselves.

    Raises:
        ModelFileError: The file is missing, too large, damaged, not made by weedseg, of a newer
            schema, differs from its checksum, uses external data or operators of other domains.
    """
    if isinstance(model, bytes):
        name, data, promised = "model", model, {}
        if len(data) > max_bytes:
            raise _too_large(name, len(data), max_bytes)
    else:
        path = Path(model)
        name, data, promised = str(path), _read(path, max_bytes), _checksums(path)
    if sha256 is not None:
        promised["the caller"] = sha256.lower()
    found = hashlib.sha256(data).hexdigest()
    for source, expected in promised.items():
        if expected != found:
            raise ModelFileError(
                f"{name}: sha256 {found[:12]}... differs from {source}",
                f"{expected[:12]}...",
                "copy the model folder again",
            )
    findings = inspect_onnx(data, name)
    foreign = sorted(findings.domains - KNOWN_DOMAINS)
    if foreign:
        raise ModelFileError(
            f"{name}: custom operators of domain '{foreign[0][:60]}'",
            "standard ONNX operators only",
            "export it again with weedseg export",
        )
    metadata = parse_metadata(findings.metadata, name)
    own = findings.metadata.get(CHECKSUM_KEY)
    if own != f'"{findings.content_sha256}"':
        raise ModelFileError(
            f"{name}: damaged, its content differs from the checksum inside it",
            f"{own[1:13]}..." if own else f"metadata {CHECKSUM_KEY}",
            "copy or export it again",
        )
    return ModelFile(name=name, data=data, sha256=found, metadata=metadata)


def _read(path: Path, max_bytes: int) -> bytes:
    """Read a regular file up to a limit.

    Raises:
        ModelFileError: It is missing, no regular file, or too large.
    """
    try:
        handle = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ModelFileError(f"{path}: not a file", "a model.onnx", "name the file itself")
            if status.st_size > max_bytes:
                raise _too_large(str(path), status.st_size, max_bytes)
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelFileError(
            f"{path} cannot be read: {reason}", "a model.onnx", "check the path"
        ) from error
    if len(data) > max_bytes:
        raise _too_large(str(path), len(data), max_bytes)
    return data


def _too_large(name: str, num_bytes: int, max_bytes: int) -> ModelFileError:
    return ModelFileError(
        f"{name}: {num_bytes / 2**20:.0f} MiB",
        f"at most {max_bytes / 2**20:.0f} MiB",
        "check the file",
    )


def _checksums(path: Path) -> dict[str, str]:
    """Return the checksums that files beside a model promise for it, by the name of that file.

    Raises:
        ModelFileError: A checksum file cannot be understood.
    """
    promised = {}
    for sums in (path.with_name(f"{path.name}.sha256"), path.with_name("SHA256SUMS")):
        if not os.path.lexists(sums):
            continue
        own = sums.name != "SHA256SUMS"
        try:
            lines = _read(sums, _MAX_CHECKSUM_BYTES).decode("utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise _odd_checksum(sums) from error
        rows = [line.split(maxsplit=1) for line in lines if line.strip()]
        mine = [r[0] for r in rows if own or (len(r) == 2 and _listed(r[1]) == path.name)]
        if (own and not mine) or any(not _is_sha256(value) for value in mine):
            raise _odd_checksum(sums)
        if mine:
            promised[sums.name] = mine[0].lower()
    return promised


def _listed(text: str) -> str:
    """Return the file name in a line of SHA256SUMS (binary mode marks it with a star)."""
    return text.strip().lstrip("*").removeprefix("./")


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdefABCDEF" for c in text)


def _odd_checksum(path: Path) -> ModelFileError:
    return ModelFileError(
        f"{path}: no sha256 of the model in it", "64 hexadecimal digits", "copy the folder again"
    )
