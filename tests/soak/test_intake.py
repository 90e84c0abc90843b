"""Import and check of 10,000 small photos: memory stays flat (2 % of them unless --soak)."""

import pytest

from weedseg.bench.intake import measure_intake

NUM_PHOTOS = 10_000
GROWTH_BYTES_PER_PHOTO = 6_000
"""Names, hashes and what one look tells of a photo; a decoded one would be 27,648."""
FIXED_BYTES = 24 << 20
"""Buffers that a larger farm fills for the first time."""


@pytest.mark.soak
def test_memory_is_flat_in_the_number_of_photos(tmp_path, soak_share):
    num = round(soak_share * NUM_PHOTOS)
    line = measure_intake(tmp_path, num)
    print(
        f"{num} photos: import {line['import_per_second']:.0f}/s, check "
        f"{line['check_per_second']:.0f}/s; peak {line['peak_memory_bytes'] / 2**20:.0f} MiB, "
        f"{line['few_peak_memory_bytes'] / 2**20:.0f} MiB at {line['few_photos']}"
    )
    assert line["faults"] == 0
    growth = line["peak_memory_bytes"] - line["few_peak_memory_bytes"]
    assert growth < FIXED_BYTES + GROWTH_BYTES_PER_PHOTO * num
