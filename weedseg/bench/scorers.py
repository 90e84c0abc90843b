"""What do scorers point at? Mean rank of patches of soil, crop and weed under each of them.

A network is pretrained with random masks, then whole photos are scored by a complementary pair of
masks. A scorer that finds plants gives their patches ranks near 1, chance gives 0.5. Masks are
looked at for this report only; test photos are not looked at.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from weedseg import __version__
from weedseg.bench.lines import commit
from weedseg.bench.pretraining import Dataset
from weedseg.classes import Role
from weedseg.config import Recipe
from weedseg.data.datasets import PhotoPool
from weedseg.imaging import Image
from weedseg.nets.segmenter import build_net
from weedseg.nets.weights import load_whole
from weedseg.pretraining import patches, scoring
from weedseg.pretraining import run as pretraining
from weedseg.pretraining.scorer import photo_tensor, reconstruct
from weedseg.pretraining.scoring import Grid
from weedseg.pretraining.task import mean_colour

NUM_PHOTOS = 16
SHARES = {Role.BACKGROUND: 0.9, Role.CROP: 0.3, Role.WEED: 0.15}
"""A patch belongs to a role from this share of its pixels on."""
SCORERS = {
    "structure": "L1 + (1 - SSIM), as published",
    "reducible": "the same at half resolution, divided by contrast",
    "colour": "L1 of colour without brightness",
    "edges": "brightness differences, without a network",
    "green": "excess green, without a network",
}


def measure_scorers(dataset: Dataset, recipe: Recipe) -> dict[str, Any]:
    """Pretrain at random and rank patches by every scorer.

    Args:
        dataset: Photos with masks.
        recipe: A recipe of random masking.

    Returns:
        One line; ``ranks`` by scorer and role, ``edges`` correlation with brightness differences.
    """
    unlabelled = dataset.split(0, 0).unlabelled
    known = [photo for photo in unlabelled if photo.mask is not None]
    photos = tuple(known[:: max(len(known) // NUM_PHOTOS, 1)][:NUM_PHOTOS])
    with tempfile.TemporaryDirectory() as folder:
        options = pretraining.PretrainOptions(
            folder=Path(folder), device=torch.device("cpu"), seed=0
        )
        summary = pretraining.pretrain(dataset.farm, unlabelled, recipe, options)
        net = build_net(recipe.net, 3)
        load_whole(net, Path(folder) / "weights.safetensors")
    pool = PhotoPool(dataset.farm, photos, summary["scale"], 512, with_masks=True)
    found = [_ranks(net.eval(), pool, number, recipe) for number in range(len(pool))]
    roles = [_role_grids(dataset, pool.mask(n), recipe.pretrain.patch_px) for n in range(len(pool))]
    return {
        "bench": "scorers",
        "dataset": dataset.name,
        "steps": recipe.pretrain.steps,
        "photos": len(pool),
        "ranks": {name: _by_role([f[name] for f in found], roles) for name in SCORERS},
        "edges": {name: _correlation([(f[name], f["edges"]) for f in found]) for name in SCORERS},
        "commit": commit(),
        "version": __version__,
    }


@torch.no_grad()
def _ranks(net: nn.Module, pool: PhotoPool, number: int, recipe: Recipe) -> dict[str, Grid]:
    """Rank the patches of one photo by every scorer, (Gh, Gw) each."""
    patch_px, share = recipe.pretrain.patch_px, recipe.pretrain.hidden_share
    image: Image = pool.image(number)
    target, fill = photo_tensor(image), torch.from_numpy(mean_colour(pool))
    grid = patches.grid_size((target.shape[2], target.shape[3]), patch_px)
    masks = scoring.complementary_masks(np.random.default_rng(number), grid, share)
    drawn = [
        reconstruct(net, patches.hide(target, torch.from_numpy(mask)[None], patch_px, fill))
        for mask in masks
    ]

    def errors(kind: str) -> Grid:
        each = [
            patches.pool(scoring.error_map(d, target, kind), patch_px)[0].numpy() for d in drawn
        ]
        return scoring.combine(np.stack(each), masks, hidden_only=True)

    looks = scoring.contrast_and_usable(target, patch_px)
    return {
        "structure": scoring.ranks(errors("structure")),
        "reducible": scoring.reducible(errors("reducible"), *looks),
        "colour": scoring.ranks(errors("colour")),
        "edges": scoring.ranks(scoring.gradient_energy(target, patch_px)),
        "green": scoring.ranks(scoring.vegetation(target, patch_px)),
    }


def _role_grids(
    dataset: Dataset, mask: npt.NDArray[np.uint8], patch_px: int
) -> dict[Role, npt.NDArray[np.bool_]]:
    """Tell which patches belong to which role, (Gh, Gw) each."""
    found = {}
    for role, least in SHARES.items():
        here = np.isin(mask, dataset.farm.classes.ids_of(role)).astype(np.float32)
        found[role] = patches.pool(torch.from_numpy(here)[None], patch_px)[0].numpy() > least
    return found


def _correlation(pairs: Sequence[tuple[Grid, Grid]]) -> float:
    """Return the mean over photos of the correlation between two rankings."""
    return float(np.mean([np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]))


def _by_role(
    ranks: Sequence[Grid], roles: Sequence[Mapping[Role, npt.NDArray[np.bool_]]]
) -> dict[str, float]:
    return {
        role.value: float(
            np.concatenate([grid[own[role]] for grid, own in zip(ranks, roles)]).mean()
        )
        for role in SHARES
    }


def scorers_table(lines: list[dict[str, Any]]) -> str:
    """Draw mean ranks as a Markdown table, the newest line of each data set."""
    rows = [
        "| data set | scorer | soil | crop | weed | correlation with edges |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for line in {line["dataset"]: line for line in lines}.values():
        for name, meaning in SCORERS.items():
            ranks = line["ranks"][name]
            cells = [f"{ranks[role.value]:.2f}" for role in SHARES]
            rows.append(
                f"| {line['dataset']} | {name}: {meaning} | {' | '.join(cells)} "
                f"| {line['edges'][name]:.2f} |"
            )
    return "\n".join(rows) + "\n" if lines else ""
