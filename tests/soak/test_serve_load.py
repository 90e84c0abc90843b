"""Memory of the service over 10,000 requests of mixed size in full: flat, and a leak is noticed.

Stops and slow clients under load: tests/integration/test_serve_load.py and test_serve_http.py.
"""

import io
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from colour_model import make_colour_model
from PIL import Image
from scipy.stats import theilslopes
from serving import Server

from weedseg.imaging import resize_to

pytestmark = pytest.mark.soak

NUM_REQUESTS = 10_000
MAX_GROWTH_MIB = 100.0
SIDES_PX = (48, 120, 250, 400, 640, 900, 1300)
FORMATS = (("JPEG", {"quality": 85}), ("PNG", {"compress_level": 1}), ("WEBP", {}), ("TIFF", {}))
ANSWERS = ("application/json", "image/png", "image/jpeg")
LINES = Path(__file__).parents[2] / "models" / "benchmarks" / "soak" / "serve_memory.jsonl"
LEAK = """
from weedseg.serve import predicting

kept, honest = [], predicting.Predictor.predict


def leaking(self, *arguments, **options):
    prediction = honest(self, *arguments, **options)
    kept.append(prediction)
    return prediction


predicting.Predictor.predict = leaking
"""


@pytest.fixture(scope="module")
def uploads():
    """Photos of every size in every format, and some that are cut short."""
    rng, made = np.random.default_rng(0), []
    for side in SIDES_PX:
        coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        picture = Image.fromarray(resize_to(coarse, (side * 3 // 4, side)))
        for name, options in FORMATS:
            file = io.BytesIO()
            picture.save(file, name, **options)
            made.append(file.getvalue())
    return [*made, made[0][:200], made[-3][: len(made[-3]) // 3]]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(make_colour_model(tile_px=256, overlap_px=32))
    return path


def growth_of(server, uploads, num):
    """Send photos; the memory of all processes is read in 50 pauses, and the first fifth warms up.

    Returns the growth between the medians of the first and the last five of these (MiB), the slope
    as growth over 10,000 requests (MiB; the median over all pairs, so that a step that happens
    once does not count), and how often each status came.
    """
    rng, codes = np.random.default_rng(1), Counter()
    places, memory = [], []
    with server.client() as client, ThreadPoolExecutor(4) as pool:

        def post(draw):
            photo, answer = uploads[draw[0]], ANSWERS[draw[1]]
            return client.post("/v1/predict", content=photo, headers={"Accept": answer}).status_code

        for number in range(50):
            size = (num // 50, 2)
            codes.update(pool.map(post, rng.integers(0, (len(uploads), len(ANSWERS)), size)))
            places.append((number + 1) * size[0])
            memory.append(server.memory_mib())
    growth = float(np.median(memory[-5:]) - np.median(memory[10:15]))
    slope = 1e4 * float(theilslopes(memory[10:], places[10:])[0])
    return {
        "requests": sum(codes.values()),
        "codes": {str(code): times for code, times in sorted(codes.items())},
        "memory_mib": round(float(np.median(memory[10:15])), 1),
        "growth_mib": round(growth, 1),
        "mib_per_10000": round(slope, 1),
    }


def is_flat(found):
    """The slope over a few requests is noise, so it counts in full only."""
    long = found["requests"] >= NUM_REQUESTS / 2
    return found["growth_mib"] <= MAX_GROWTH_MIB and (
        not long or found["mib_per_10000"] <= MAX_GROWTH_MIB / 2
    )


def test_memory_does_not_grow(tmp_path, uploads, model, soak_share, keep_campaign):
    with Server(tmp_path / "data", model=model) as server:
        found = growth_of(server, uploads, round(NUM_REQUESTS * soak_share))
    keep_campaign("serve_memory", **found)
    assert set(found["codes"]) == {"200", "422"}
    assert is_flat(found)


def test_a_leak_is_noticed(tmp_path, uploads, model, monkeypatch):
    """The control: a server that keeps every photo and its result."""
    (tmp_path / "sitecustomize.py").write_text(LEAK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Server(tmp_path / "data", model=model) as server:
        found = growth_of(server, uploads, NUM_REQUESTS // 50)
    print(f"\n{found}")
    assert set(found["codes"]) == {"200", "422"}
    assert not is_flat(found)


def test_the_line_of_the_full_campaign_is_flat():
    """What was recorded is what is promised."""
    lines = [json.loads(line) for line in LINES.read_text().splitlines()]
    assert all(is_flat(line) for line in lines)
    assert lines[-1]["requests"] == NUM_REQUESTS
