"""The process that decodes photos of strangers: it may compute, and little else.

Started by `weedseg.serve.decoding` as ``python -m weedseg.serve.sandbox MEMORY_BYTES CPU_S``. It
reads one line of JSON and the bytes of a photo from standard input, and writes one line of JSON
and the pixels. Nothing that it says is executed: the other side reads numbers, text and pixels.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import struct
import sys
import zlib
from typing import IO, Any

import cv2

from weedseg.errors import ImageError
from weedseg.imaging import Image, decode_image
from weedseg.serve.headers import Refused, check_header, decode_heif, is_heif

_PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 38, 4
_MAX_FILES = 32
_BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError),
    *(struct.error, zlib.error, OverflowError, AttributeError, RuntimeError, cv2.error),
)
"""What readers of damaged files raise."""


def main() -> None:
    """Answer until standard input ends."""
    memory_bytes, cpu_s = int(sys.argv[1]), int(sys.argv[2])
    requests = os.fdopen(os.dup(0), "rb", buffering=1 << 20)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # what libraries print must not mix with the answers
        os.dup2(nowhere, stream)
    cv2.setNumThreads(1)
    _warm_up()
    confine(memory_bytes)
    while line := requests.readline():
        limit_cpu(cpu_s)
        _answer(json.loads(line), requests, answers)


def _answer(request: dict[str, Any], requests: IO[bytes], answers: IO[bytes]) -> None:
    data = requests.read(request["bytes"])
    try:
        image = decode(data, request["name"], request["max_pixels"])
    except Refused as refused:
        _write(answers, {"status": refused.status, "detail": str(refused)})
    except MemoryError:
        _write(answers, {"status": 413, "detail": _no_memory(request["name"])})
    else:
        _write(answers, {"height": image.shape[0], "width": image.shape[1]})
        view = memoryview(image.data).cast("B")
        while view:
            view = view[answers.write(view) :]


def decode(data: bytes, name: str, max_pixels: int) -> Image:
    """Decode a photo after a look at its header.

    Args:
        data: The bytes of the file.
        name: What messages call it.
        max_pixels: Largest height x width.

    Returns:
        uint8 (H, W, 3), RGB, as a person sees it.

    Raises:
        Refused: It is no photo, damaged or too large.
        MemoryError: It takes more memory than this process may have.
    """
    if is_heif(data):
        return decode_heif(data, name, max_pixels)
    try:
        check_header(data, name, max_pixels)
        return decode_image(data, name, max_pixels)
    except ImageError as error:
        if isinstance(error.__cause__, MemoryError):
            raise MemoryError from error
        raise Refused(422, str(error)) from error
    except _BROKEN as error:
        raise Refused(422, f"{name} cannot be read; expected a whole photo; replace it") from error


def _write(answers: IO[bytes], answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode("ascii") + b"\n")


def _no_memory(name: str) -> str:
    return f"{name}: decoding takes too much memory; expected a smaller photo; cut it into parts"


def _warm_up() -> None:
    """Load the plug-ins now: later there may be no memory for them."""
    from PIL import Image as PillowImage

    PillowImage.init()
    try:
        import pi_heif  # noqa: F401 - optional
    except ImportError:
        return


def confine(memory_bytes: int) -> None:
    """Give up what decoding does not need: memory, files, children, privileges, core dumps."""
    with open("/proc/self/statm", "rb") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    for kind, limit in (
        (resource.RLIMIT_AS, used + memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _MAX_FILES),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit_cpu(seconds: int) -> None:
    """Let the kernel end this process when one photo takes more processor time."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(spent.ru_utime + spent.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
