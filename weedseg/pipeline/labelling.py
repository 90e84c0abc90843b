"""No label at all: name the photos that are worth labelling first."""

from __future__ import annotations

import csv
import io

import numpy as np
import torch

from weedseg.data.datasets import PhotoPool
from weedseg.imaging import write_png
from weedseg.nets.segmenter import build_net
from weedseg.nets.weights import load_whole
from weedseg.pipeline.run import Run
from weedseg.pretraining.label_first import choose, thumbnail
from weedseg.pretraining.scorer import PhotoScorer
from weedseg.pretraining.task import mean_colour
from weedseg.training.checkpoint import write_durably

NUM_PHOTOS = 10
MAX_SCORED = 200
COLUMNS = ("rank", "photo", "mean_hidden_error", "field", "date", "thumbnail")


def label_first_stage(run: Run) -> list[str]:
    """Write ``label_first.csv`` and thumbnails; returns the names of the photos, best first.

    Raises:
        CheckpointError: The pretrained weights are missing.
        OutputError: The disk is full.
    """
    net = build_net(run.recipe.net, 3)
    load_whole(net, run.folder.pretrain / "weights.safetensors")
    photos = run.pretrain_photos
    pool = PhotoPool(run.farm, photos, run.scale, run.recipe.data.cache_mib)
    fill = torch.from_numpy(mean_colour(pool))
    scorer = PhotoScorer(pool, run.recipe.pretrain, run.recipe.scoring, fill)
    spread = np.linspace(0, len(pool) - 1, min(MAX_SCORED, len(pool))).round().astype(int)
    numbers = sorted({pool.readable(n) for n in spread.tolist()})
    scored = scorer.score_all(net, numbers, run.seed)
    candidates = choose(pool, {n: s.mean_error for n, s in scored.items()}, NUM_PHOTOS)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for rank, candidate in enumerate(candidates, start=1):
        photo = photos[candidate.photo]
        picture = f"label_first/{rank:02d}.png"
        write_png(run.folder.path / picture, thumbnail(pool.image(candidate.photo)))
        error = f"{candidate.mean_hidden_error:.4f}"
        writer.writerow((rank, photo.name, error, photo.field, photo.date, picture))
    data = text.getvalue().encode("utf-8", "surrogateescape")
    write_durably(run.folder.path / "label_first.csv", data)
    return [photos[c.photo].name for c in candidates]
