"""Photos with their near-infrared twin as a fourth channel.

`weedseg data import --nir` puts the twins into ``nir/``, where nothing takes them for photos.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from weedseg.data.index import Farm, Photo
from weedseg.data.pairing import IMAGE_FOLDER
from weedseg.data.writing import NIR_FOLDER
from weedseg.errors import ImageError
from weedseg.imaging import IMAGE_SUFFIXES, read_image

FourChannels: TypeAlias = npt.NDArray[np.uint8]
"""Photo: uint8 (H, W, 4), red, green, blue, near infrared."""


def nir_twin(farm: Farm, photo: Photo) -> Path | None:
    """Return the near-infrared twin of a photo; None if it has none."""
    stem = photo.name.rpartition(".")[0].removeprefix(f"{IMAGE_FOLDER}/")
    twins = [farm.root / NIR_FOLDER / f"{stem}{ending}" for ending in sorted(IMAGE_SUFFIXES)]
    return next((path for path in twins if path.is_file()), None)


def read_with_nir(farm: Farm, photo: Photo) -> FourChannels:
    """Read a photo and its near-infrared twin.

    Args:
        farm: An imported farm.
        photo: One of its photos.

    Returns:
        uint8 (H, W, 4), red, green, blue, near infrared.

    Raises:
        ImageError: A file cannot be read, there is no twin, or it is of another size.
    """
    path = nir_twin(farm, photo)
    if path is None:
        raise ImageError(f"{photo.path} has no twin in nir/", "one", "import the set with --nir")
    image, nir = read_image(photo.path), read_image(path)
    if nir.shape != image.shape:
        raise ImageError(
            f"{path} is {nir.shape[1]}x{nir.shape[0]} px",
            f"{image.shape[1]}x{image.shape[0]} px as its photo",
            "download it again",
        )
    both: FourChannels = np.concatenate([image, nir[..., :1]], axis=2)
    return both
