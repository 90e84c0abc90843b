"""Does importing and checking many photos need memory that grows, and how fast are they?

``python -m weedseg.bench.intake WORK NUM`` writes a farm of NUM small photos, imports and checks
it, and prints one line of JSON. Each number of photos is measured in a process of its own, since
a process remembers the most memory that it ever held.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from weedseg import __version__
from weedseg.bench.lines import commit
from weedseg.data.importers import collect
from weedseg.data.importers.items import ImportOptions
from weedseg.data.index import Photo, index_farm
from weedseg.data.look import full_check
from weedseg.data.survey import survey_all
from weedseg.data.synthetic import draw_photo, draw_style
from weedseg.data.writing import write_collection
from weedseg.errors import OutputError
from weedseg.imaging import resize_to, write_bytes, write_png

SIDE_PX = 96
LABELLED_SHARE = 0.5
_ATTEMPT_S = 3600
_NUM_LARGE = 17


def measure_intake(work: Path, num: int) -> dict[str, Any]:
    """Compare `num` photos with a tenth of them.

    Args:
        work: Folder for the photos; new or empty.
        num: Photos of the larger farm, >= 10.

    Returns:
        One line: photos per second of import and check, peak memory of both sizes, its growth.

    Raises:
        OutputError: A measurement failed.
    """
    few, many = (_in_new_process(work / str(n), n) for n in (max(1, num // 10), num))
    growth = many["peak_memory_bytes"] - few["peak_memory_bytes"]
    return {
        "bench": "intake",
        "photos": num,
        "side_px": SIDE_PX,
        "import_per_second": num / many["import_seconds"],
        "check_per_second": num / many["check_seconds"],
        "faults": many["faults"],
        "few_photos": few["photos"],
        "few_peak_memory_bytes": few["peak_memory_bytes"],
        "peak_memory_bytes": many["peak_memory_bytes"],
        "growth_bytes_per_photo": growth / (num - few["photos"]),
        "check_12mp_per_second": _large_rate(work / "large"),
        "cores": os.cpu_count(),
        "commit": commit(),
        "version": __version__,
    }


def take_in(work: Path, num: int) -> dict[str, Any]:
    """Write, import and check `num` photos in this process.

    Args:
        work: New folder.
        num: Number of photos, half of them labelled.

    Returns:
        Seconds of import and check, number of faults, peak memory of this process, bytes.

    Raises:
        WeedsegError: Import or check failed.
    """
    _write_photos(work / "source", num)
    started = time.perf_counter()
    write_collection(collect("png", work / "source", ImportOptions()), work / "farm", "png")
    imported = time.perf_counter()
    faults, _ = full_check(index_farm(work / "farm"))
    return {
        "photos": num,
        "import_seconds": imported - started,
        "check_seconds": time.perf_counter() - imported,
        "faults": len(faults),
        "peak_memory_bytes": _peak_memory_bytes(),
    }


def _peak_memory_bytes() -> int:
    """Return the most memory that this program held, bytes.

    Linux counts in ``ru_maxrss`` what the process held before it became this program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if found:
            return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _write_photos(folder: Path, num: int) -> None:
    """Write photos that no two of which look alike, one in two with a mask."""
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    mask[:9], mask[20:25] = 1, 2
    for number in range(num):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        name = f"{number:06d}.png"
        write_png(folder / "images" / name, resize_to(coarse, (SIDE_PX, SIDE_PX)))
        if number % round(1 / LABELLED_SHARE) == 0:
            write_png(folder / "masks" / name, mask)


def _large_rate(work: Path) -> float:
    """Return how many photos of 12 megapixels a second the check looks at."""
    image, _ = draw_photo(np.random.default_rng(0), draw_style(1, 0, 0), (750, 1000))
    large = cv2.cvtColor(resize_to(image, (3000, 4000)), cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    paths = [work / f"{number}.jpg" for number in range(_NUM_LARGE)]
    for path in paths:
        write_bytes(path, data)
    survey_all([Photo(name="", path=paths[0])])  # loads what a first look loads
    started = time.perf_counter()
    survey_all([Photo(name=path.name, path=path) for path in paths[1:]])
    return (_NUM_LARGE - 1) / (time.perf_counter() - started)


def _in_new_process(work: Path, num: int) -> dict[str, Any]:
    """Measure one number of photos in a fresh process.

    Raises:
        OutputError: It failed.
    """
    command = [sys.executable, "-m", "weedseg.bench.intake", str(work), str(num)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_ATTEMPT_S, check=False)
    if done.returncode:
        raise OutputError(
            f"{num} photos could not be taken in: {done.stderr.strip()[-300:]}",
            "a process that ends well",
            "free memory and disk, then try again",
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    print(json.dumps(take_in(Path(sys.argv[1]), int(sys.argv[2]))))
