"""A map is killed at random instants, again and again, and ends in the bytes of one that was not.

In full: 20 kills of the real command on a mosaic of a gigapixel with the released model; in the
ordinary check a few kills on a small one with the colour model.
"""

import json
import os
import random
import subprocess
import sys
import time

import pytest
from colour_field import random_squares, write_field
from colour_model import make_colour_model

from weedseg.bench.maps_mosaic import drawn_block, write_large_mosaic
from weedseg.edge.released import default_model

pytestmark = pytest.mark.soak

KILLS, GIGAPIXEL = 20, (31_623, 31_623)
SMALL_KILLS, SMALL = 2, (80, 120)
SAME = ("classes.tif", "confidence.tif", "cells.csv", "cells.geojson")
CLOCKS = ("made", "seconds", "segmenting_seconds", "segmenting_processor_seconds")


def test_a_killed_map_ends_in_the_same_bytes(tmp_path, soak_share, keep_campaign):
    full = soak_share == 1
    mosaic, model = tmp_path / "field.tif", tmp_path / "model.onnx"
    if full:
        write_large_mosaic(mosaic, drawn_block(), GIGAPIXEL)
        model = default_model()
    else:
        write_field(mosaic, random_squares(*SMALL), compress="deflate")
        model.write_bytes(make_colour_model())
    assert begin(mosaic, model, tmp_path / "reference").wait() == 0
    values = json.loads((tmp_path / "reference" / "map.json").read_text())
    wanted = contents(tmp_path / "reference")
    most_s = values["segmenting_seconds"] / (6 if full else 2)
    rng, out, kept = random.Random(0), tmp_path / "out", []
    for _ in range(KILLS if full else SMALL_KILLS):
        process = begin(mosaic, model, out)
        wait_for_parts(process, out)
        time.sleep(rng.random() * most_s)
        process.kill()
        process.wait()
        kept.append(len(list((out / ".parts").glob("*.part"))))
        if (out / "map.json").exists():  # this one had come to its end before the kill
            assert contents(out) == wanted
            out = tmp_path / f"out{len(kept)}"
    process = begin(mosaic, model, out)
    assert process.wait() == 0
    assert contents(out) == wanted
    assert sorted(os.listdir(out)) == sorted(os.listdir(tmp_path / "reference"))
    assert max(kept) > 0
    told = {"kills": len(kept), "parts_kept": kept, "seconds": values["seconds"]}
    keep_campaign("map_kills", what="map", **told)


def begin(mosaic, model, out):
    command = [sys.executable, "-m", "weedseg", "map", mosaic, "--model", model, "--out", out]
    command += ["--cell-m", "0.5", "--workers", "2"]
    return subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_for_parts(process, out):
    """Wait until the work has begun."""
    end = time.monotonic() + 120
    while process.poll() is None and not (out / ".parts" / "state.json").exists():
        assert time.monotonic() < end
        time.sleep(0.005)


def contents(out):
    """Return what must be the same: rasters, cells, and all of map.json but the clock."""
    values = json.loads((out / "map.json").read_text())
    kept = {key: value for key, value in values.items() if key not in CLOCKS}
    return [(out / name).read_bytes() for name in SAME], kept
