"""Make confidence honest, and learn what the farm's photos look like; before the export.

Both go into the model file: the temperature into its graph, the statistics into its metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from weedseg.classes import IGNORE_ID
from weedseg.data.datasets import PhotoPool
from weedseg.data.index import Photo
from weedseg.edge.ood import OodReference, photo_statistics
from weedseg.evaluation.ood import MIN_PHOTOS, fit_ood
from weedseg.evaluation.temperature import fit_temperature
from weedseg.nets.segmenter import SegmentationNet
from weedseg.pipeline.run import Run
from weedseg.tiles import Stitcher, cut, plan_tiles

NUM_PHOTOS = 60
"""At most so many labelled photos fit the temperature."""
NUM_PIXELS = 4096
"""So many pixels of each."""
NUM_OOD_PHOTOS = 200
"""At most so many photos say what the farm looks like."""

HeldOut = Iterable[tuple[SegmentationNet, Sequence[Photo]]]


def calibrate(run: Run, held_out: HeldOut) -> dict[str, Any]:
    """Write ``finetune/calibration.json``, or read it when it is there.

    Args:
        run: The run.
        held_out: Networks, each with labelled photos that it was not trained on, and that are not
            the test photos of a hold-out.

    Returns:
        temperature (1 without such photos) and how it was found; ood: None with fewer than 20
        photos, else an `OodReference` as plain data.
    """
    name = "finetune/calibration.json"
    done = run.folder.read(name)
    if done:
        return done
    source = "out-of-fold photos" if run.split.kind == "cross-validation" else "validation photos"
    found = _temperature(run, held_out)
    values = {"temperature": 1.0, "fitted_on": source if found else "", **found, "ood": _ood(run)}
    run.folder.write(name, values)
    return values


def _temperature(run: Run, held_out: HeldOut) -> dict[str, Any]:
    """Fit the temperature; {} when no photo was held out."""
    rng = np.random.default_rng([run.seed, 11])
    logits, truth = [], []
    for net, photos in held_out:
        pool = _pool(run, photos, NUM_PHOTOS, with_masks=True)
        for number in range(len(pool)):
            rows, ids = _sample(run, net, pool.image(number), pool.mask(number), rng)
            logits.append(rows)
            truth.append(ids)
    if not sum(map(len, truth)):
        return {}
    return {**fit_temperature(np.concatenate(logits), np.concatenate(truth)), "photos": len(truth)}


@torch.inference_mode()
def _sample(
    run: Run,
    net: SegmentationNet,
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8],
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Return logits (P, C) and truth (P,) of random valid pixels of a photo."""
    net.eval()
    device = next(net.parameters()).device
    settings = run.recipe.export
    plan = plan_tiles((image.shape[0], image.shape[1]), settings.tile_px, settings.overlap_px)
    stitcher = Stitcher(plan, np.float32, (len(run.farm.classes),))
    for number in range(len(plan.placements)):
        tile = torch.from_numpy(np.ascontiguousarray(cut(plan, image, number))).to(device)
        stitcher.add(
            number, net(tile.permute(2, 0, 1)[None].float() / 255)[0].cpu().permute(1, 2, 0).numpy()
        )
    places = np.flatnonzero(mask.reshape(-1) != IGNORE_ID)
    places = rng.permutation(places)[:NUM_PIXELS]
    logits = stitcher.result().reshape(-1, len(run.farm.classes))
    return logits[places], mask.reshape(-1)[places]


def _ood(run: Run) -> dict[str, Any] | None:
    """Learn what the photos look like; those that test a hold-out stay out of it."""
    tested = {photo.name for photo in run.split.test}
    photos = [photo for photo in run.farm.photos if photo.name not in tested]
    order = np.random.default_rng([run.seed, 12]).permutation(len(photos))[:NUM_OOD_PHOTOS]
    pool = _pool(run, [photos[i] for i in order], NUM_OOD_PHOTOS)
    if len(pool) < MIN_PHOTOS:
        return None
    rows = np.array([photo_statistics(pool.image(number)) for number in range(len(pool))])
    mean, weights = fit_ood(rows)
    return OodReference(mean=mean, weights=weights).to_dict()


def _pool(run: Run, photos: Sequence[Photo], most: int, with_masks: bool = False) -> PhotoPool:
    chosen = tuple(photos[:: max(-(-len(photos) // most), 1)])
    return PhotoPool(run.farm, chosen, run.scale, run.recipe.data.cache_mib, with_masks=with_masks)
