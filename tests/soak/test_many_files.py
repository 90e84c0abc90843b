"""Import and check of many small files: memory flat, rate printed; 200 files unless --soak."""

import json
import subprocess
import sys

import numpy as np
import pytest

from weedseg.imaging import write_png

pytestmark = pytest.mark.soak

NUM_FILES, SIDE_PX = 10_000, 32
MAX_GROWTH_MIB = 120
CODE = """
import json, re, sys, time
from pathlib import Path
from weedseg.cli import main

def step(*arguments):
    start = time.perf_counter()
    assert main(['data', *arguments]) == 0
    kib = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]
    return time.perf_counter() - start, int(kib) / 1024

src, out = sys.argv[1:]
took = [step('import', 'png', src, '--out', out), step('check', out)]
print('FIGURES', json.dumps(took))
"""


def farm_of(root, num):
    rng = np.random.default_rng(num)
    for i in range(num):
        image = rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
        write_png(root / "images" / f"{i:05d}.png", image)
        mask = rng.integers(0, 3, (SIDE_PX, SIDE_PX), dtype=np.uint8)
        write_png(root / "masks" / f"{i:05d}.png", mask)
    return root


def figures(root, num):
    """Import and check in a process of its own; return (s, peak MiB) of both."""
    arguments = [str(farm_of(root / "in", num)), str(root / "out")]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("FIGURES ")[2])


def test_memory_is_flat_over_many_files(tmp_path, soak_share):
    num = round(NUM_FILES * soak_share)
    few = figures(tmp_path / "few", num // 10)
    many = figures(tmp_path / "many", num)
    for name, (_, small), (took_s, peak) in zip(("import", "check"), few, many):
        print(
            f"{name}: {num / took_s:.0f} files/s; peak {peak:.0f} MiB for {num} files, "
            f"{small:.0f} MiB for {num // 10}"
        )
        assert peak - small < MAX_GROWTH_MIB
