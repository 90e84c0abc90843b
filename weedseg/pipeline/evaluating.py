"""Measure a run: held-out photos through the exported model, folds through their own networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from weedseg.data.datasets import PhotoPool
from weedseg.data.index import Photo
from weedseg.data.masks import read_mask
from weedseg.edge.segmenter import Segmenter, segment_photo
from weedseg.evaluation import pictures
from weedseg.evaluation.baselines import ColourThreshold, score_baselines
from weedseg.evaluation.scores import Evaluation, untested
from weedseg.imaging import Image, read_image, resize_class_map, resize_to, write_png
from weedseg.nets.segmenter import SegmentationNet
from weedseg.pipeline.confidence import Predict, SprayedPlants, temperature_figures
from weedseg.pipeline.run import Run
from weedseg.pipeline.stages import WEIGHTS, fold_folder, load_net, photos_outside

NUM_PICTURES = 6
PICTURE_PX = 640
NUM_BASELINE_PHOTOS = 40

Groups = list[tuple[Sequence[Photo], Predict, Predict]]
"""Test photos, what predicts them, and what does without the temperature."""


def evaluate_stage(run: Run) -> dict[str, Any]:
    """Write ``evaluation.json`` and pictures; returns what the file holds.

    Raises:
        ModelFileError: The exported model is missing or damaged.
    """
    label = "within-field" if run.split.within_field else ""
    split = run.split.to_dict()
    if run.split.kind == "untested":
        values = untested(run.farm.classes, split, label)
    else:
        evaluation = Evaluation(run.farm.classes, seed=run.seed)
        plants = SprayedPlants(run.farm.classes)
        groups = _predictors(run)
        for photos, predict, _ in groups:
            for photo in photos:
                result, mask = predict(read_image(photo.path)), read_mask(run.farm, photo)
                evaluation.add(photo.name, mask, result.class_map, result.confidence)
                plants.add(mask, result.class_map, photo.mm_per_px)
        values = evaluation.to_dict(split, label, _note(run), _baselines(run))
        values["temperature"] = temperature_figures(run, groups)
        values["plants"] = plants.to_dict()
        _write_pictures(run, groups, values)
    values["pretraining_saw_test"] = run.pretraining_saw_test
    run.folder.write("evaluation.json", values)
    return values


def _predictors(run: Run) -> Groups:
    """Pair test photos with what predicts them."""
    segmenter = Segmenter(run.folder.model)
    if run.split.kind == "holdout":
        net = load_net(run, run.folder.finetune / WEIGHTS)
        return [(run.split.test, segmenter.segment, torch_predictor(net, segmenter, 1.0))]
    groups: Groups = []
    for number, fold in enumerate(run.split.folds):
        net = load_net(run, fold_folder(run, number) / WEIGHTS)
        groups.append((fold, torch_predictor(net, segmenter), torch_predictor(net, segmenter, 1.0)))
    return groups


def torch_predictor(
    net: SegmentationNet, like: Segmenter, temperature: float | None = None
) -> Predict:
    """Segment photos with a torch network over the tiles that a deployed model would use.

    Args:
        net: The network.
        like: An exported model of the same run: tile size, overlap, scale, classes.
        temperature: Divides the logits; that of the model by default.
    """
    divisor = like.metadata.temperature if temperature is None else temperature
    net.eval()

    @torch.inference_mode()
    def run_tiles(
        images: npt.NDArray[np.float32],
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        shares = (net(torch.from_numpy(images)) / divisor).softmax(1)
        best, ids = shares.max(1)
        return ids.to(torch.uint8).numpy(), (100 * best).round().to(torch.uint8).numpy()

    return lambda image: segment_photo(image, like.metadata, run_tiles)


def _note(run: Run) -> str:
    sentences = [run.split.note]
    if run.split.kind == "cross-validation":
        sentences.append(
            "figures are out-of-fold: every photo was predicted by a network that never saw its "
            "mask; the final model is trained on all of them"
        )
    if run.pretraining_saw_test:
        sentences.append("pretraining saw these photos without their masks")
    return "; ".join(sentence for sentence in sentences if sentence)


def _baselines(run: Run) -> dict[str, Any]:
    """Score the two baselines: fitted on training photos only, at working resolution."""
    if run.split.kind == "holdout":
        parts = [(run.split.train, run.split.test)]
    else:
        parts = [(photos_outside(run.split.folds, 0), run.split.folds[0])]
    training, test = (_pool(run, part) for part in parts[0])
    colours = ColourThreshold.fit(*_arrays(training))
    images, masks = _arrays(test)
    return score_baselines(images, masks, run.farm.classes, colours)


def _pool(run: Run, photos: Sequence[Photo]) -> PhotoPool:
    step = max(len(photos) // NUM_BASELINE_PHOTOS, 1)
    chosen = tuple(photos[::step][:NUM_BASELINE_PHOTOS])
    return PhotoPool(run.farm, chosen, run.scale, run.recipe.data.cache_mib, with_masks=True)


def _arrays(pool: PhotoPool) -> tuple[list[Image], list[npt.NDArray[np.uint8]]]:
    numbers = range(len(pool))
    return [pool.image(i) for i in numbers], [pool.mask(i) for i in numbers]


def _write_pictures(run: Run, groups: Groups, values: dict[str, Any]) -> None:
    """Draw photos from the best to the worst weed IoU, evenly chosen."""
    scores = {row["photo"]: row["weed_iou"] for row in values["photos"]}
    everything = [(photo, predict) for photos, predict, _ in groups for photo in photos]
    everything.sort(key=lambda item: -(scores.get(item[0].name) or 0.0))
    numbers = np.linspace(0, len(everything) - 1, min(NUM_PICTURES, len(everything)))
    for rank, number in enumerate(numbers.round().astype(int).tolist()):
        photo, predict = everything[number]
        image, mask = read_image(photo.path), read_mask(run.farm, photo)
        result = predict(image)
        share = min(1.0, PICTURE_PX / max(image.shape[:2]))
        size = (round(image.shape[0] * share), round(image.shape[1] * share))
        panel = pictures.result_panels(
            resize_to(image, size),
            resize_class_map(mask, size),
            resize_class_map(result.class_map, size),
            resize_class_map(result.confidence, size),
            run.farm.classes,
        )
        safe = Path(photo.name).with_suffix(".png").as_posix().replace("/", "_")
        write_png(run.folder.evaluation / "pictures" / f"{rank}-{safe}", panel)
