"""A tiny farm and trainings that take about a second."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from trainer import TINY, Trainer

from weedseg.config import load_recipe
from weedseg.data.index import index_farm
from weedseg.data.synthetic import write_farm
from weedseg.finetuning import run as finetuning
from weedseg.pretraining import run as pretraining


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """Eight photos of 96 x 128 px, six of them with masks."""
    folder = tmp_path_factory.mktemp("farm")
    write_farm(folder, 0, num_photos=8, num_labelled=6, size=(96, 128), fields=1)
    return folder


@pytest.fixture(scope="session")
def tiny_farm(tiny_folder):
    return index_farm(tiny_folder)


@pytest.fixture(scope="module")
def trainer(tiny_folder):
    """A process that trains in forked children: for kills and signals."""
    with Trainer(tiny_folder) as running:
        yield running


@pytest.fixture
def tiny_recipe():
    def load(name="default", *settings):
        return load_recipe(name, [*TINY, *settings])

    return load


@pytest.fixture
def often(monkeypatch):
    """Save a checkpoint every second step and log every step."""
    for module in (pretraining, finetuning):
        real = module._fit_options

        def options(*args, real=real):
            return replace(real(*args), checkpoint_every=2, log_every=1)

        monkeypatch.setattr(module, "_fit_options", options)


@pytest.fixture
def pretrain_tiny(tiny_farm, often):
    def run(folder, recipe, *, farm=None, seed=0, **options):
        chosen = pretraining.PretrainOptions(
            folder=folder, device=torch.device("cpu"), seed=seed, **options
        )
        farm = farm or tiny_farm
        return pretraining.pretrain(farm, farm.photos, recipe, chosen)

    return run


@pytest.fixture
def finetune_tiny(tiny_farm, often):
    def run(folder, recipe, *, farm=None, seed=0, **options):
        farm = farm or tiny_farm
        options = {"practice": farm.photos, **options}
        chosen = finetuning.FinetuneOptions(
            folder=folder, device=torch.device("cpu"), seed=seed, scale=1.0, **options
        )
        photos = (farm.labelled[:4], farm.labelled[1:])
        return finetuning.finetune(farm, photos, recipe, chosen)

    return run
