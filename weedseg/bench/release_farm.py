"""Put together the farm folder that the released model is trained on: peanut and synthetic photos.

``python -m weedseg.bench.release_farm FIELD_DATA OUT`` writes ``OUT/farm`` and ``OUT/test.txt``.
All photos lie in one folder, so that validation photos come from both sources; the test photos
are the peanut photos that the benchmarks hold out.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from weedseg.bench.pretraining import load_dataset
from weedseg.data.index import Photo, index_farm
from weedseg.data.synthetic import write_farm

NUM_SYNTHETIC, NUM_SYNTHETIC_LABELLED, SEED = 60, 60, 0


def compose(field_data: Path, out: Path) -> None:
    """Write the farm folder and the list of test photos.

    Args:
        field_data: Folder that holds ``peanut``.
        out: New folder.

    Raises:
        FieldDataError: The peanut photos are not there.
        OSError: The folder exists already, or cannot be written.
    """
    peanut = load_dataset("peanut", field_data / "peanut")
    farm = out / "farm"
    for folder in (farm / "images", farm / "masks"):
        folder.mkdir(parents=True)
    for photo in peanut.farm.photos:
        _place(photo, farm, "peanut")
    write_farm(
        out / "synthetic",
        seed=SEED,
        num_photos=NUM_SYNTHETIC,
        num_labelled=NUM_SYNTHETIC_LABELLED,
    )
    for number, photo in enumerate(index_farm(out / "synthetic").photos):
        _place(photo, farm, f"synthetic{number:03d}")
    names = [f"images/peanut-{Path(name).name}" for name in peanut.test]
    (out / "test.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _place(photo: Photo, farm: Path, source: str) -> None:
    """Link a photo and copy its mask into the flat farm folder."""
    name = f"{source}-{photo.path.name}"
    os.symlink(photo.path.resolve(), farm / "images" / name)
    if photo.mask is not None:
        target = farm / "masks" / Path(name).with_suffix(photo.mask.suffix).name
        shutil.copyfile(photo.mask, target)


if __name__ == "__main__":
    compose(Path(sys.argv[1]), Path(sys.argv[2]))
