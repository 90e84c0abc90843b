"""Practice without labels in fine-tuning: what the teacher sees, and what counts."""

import math

import pytest
import torch

from weedseg.config import load_recipe
from weedseg.data.datasets import PhotoPool
from weedseg.finetuning.consistency import TEACHER_DECAY, Consistency, agreement_loss
from weedseg.finetuning.run import FinetuneOptions, build_task
from weedseg.nets.segmenter import build_net
from weedseg.training import average

EVEN = torch.ones(3)


def logits_of(*probabilities):
    """One pixel a tuple, as (1, 3, 1, number of pixels)."""
    return torch.tensor(probabilities).log().T[None, :, None]


def test_only_pixels_of_which_the_teacher_is_sure_count():
    """Two of four pixels; the expected value is worked out by hand."""
    wanted = logits_of((0.95, 0.03, 0.02), (0.5, 0.4, 0.1), (0.05, 0.05, 0.9), (0.3, 0.4, 0.3))
    found = logits_of((0.5, 0.25, 0.25), (0.1, 0.8, 0.1), (0.2, 0.2, 0.6), (0.8, 0.1, 0.1))
    loss, sure = agreement_loss(found, wanted, EVEN, 0.89)
    assert sure == 0.5
    assert float(loss) == pytest.approx(-(math.log(0.5) + math.log(0.6)) / 4)


def test_classes_are_weighted():
    wanted = logits_of((0.95, 0.03, 0.02), (0.01, 0.01, 0.98))
    found = logits_of((0.5, 0.25, 0.25), (0.2, 0.2, 0.6))
    loss, _ = agreement_loss(found, wanted, torch.tensor([0.5, 1.0, 4.0]), 0.9)
    assert float(loss) == pytest.approx(-(0.5 * math.log(0.5) + 4 * math.log(0.6)) / 2)


def test_an_unsure_teacher_asks_for_nothing():
    found = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss, sure = agreement_loss(found, torch.zeros(2, 3, 4, 4), EVEN, 0.9)
    loss.backward()
    assert (sure, loss.item()) == (0.0, 0.0)
    assert not found.grad.any()


@pytest.fixture
def build(tiny_farm):
    def make(*settings):
        recipe = load_recipe(
            "default",
            [
                "net.encoder=mobilenetv3",
                "net.decoder_channels=8",
                "finetune.tile_px=64",
                "finetune.steps=100",
                *settings,
            ],
        )
        torch.manual_seed(0)
        net = build_net(recipe.net, 3)
        pool = PhotoPool(tiny_farm, tiny_farm.photos, 1.0, 64)
        return Consistency(net, pool, recipe, seed=5), net

    return make


def test_without_jitter_both_see_the_same_but_for_hidden_patches(build):
    consistency, _ = build("finetune.jitter=0", "finetune.consistency_hidden_share=0.5")
    whole, changed = consistency.draw(0, 0)
    assert whole.shape == changed.shape == (8, 3, 64, 64)
    differs = (whole - changed).abs().amax(1) > 1e-5
    patches = differs.unfold(1, 16, 16).unfold(2, 16, 16).float().mean((3, 4))
    assert ((patches == 0) | (patches > 0.9)).all()
    assert 0.3 < float((patches > 0).float().mean()) < 0.7


def test_nothing_is_hidden_when_the_recipe_says_so(build):
    consistency, _ = build("finetune.jitter=0", "finetune.consistency_hidden_share=0")
    whole, changed = consistency.draw(3, 0)
    assert torch.allclose(whole, changed, atol=1e-5)


def test_a_step_draws_the_same_again_and_another_step_does_not(build):
    consistency, _ = build()
    first, again, other = (consistency.draw(step, 0)[1] for step in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_weight_rises_over_the_first_fifth_and_the_teacher_gets_no_gradient(build):
    consistency, net = build("finetune.consistency_sure=0")
    whole, changed = consistency.draw(0, 0)
    logits = net(changed)
    losses = [
        float(consistency.loss(logits, whole, EVEN, step)[0].detach()) for step in (0, 10, 20, 90)
    ]
    assert losses[0] == 0
    assert losses[1] == pytest.approx(losses[2] / 2)
    assert losses[2] == pytest.approx(losses[3])
    consistency.loss(logits, whole, EVEN, 50)[0].backward()
    assert net.head.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in consistency.teacher.parameters())


def test_an_average_follows_its_network():
    net = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1))
    copied = average.frozen_copy(net)
    torch.nn.init.constant_(net[0].weight, 1.0)
    torch.nn.init.constant_(copied[0].weight, 0.0)
    net[1].running_mean.fill_(7)
    average.follow(copied, net, 0, TEACHER_DECAY)
    assert float(copied[0].weight) == pytest.approx(0.9)
    average.follow(copied, net, 10**6, TEACHER_DECAY)
    assert float(copied[0].weight) == pytest.approx(0.9 + 0.1 * 0.01)
    assert float(copied[1].running_mean) == 7
    assert not any(p.requires_grad for p in copied.parameters())


def test_training_photos_are_practised_on_when_there_are_no_others(tiny_farm, tmp_path):
    """Also when every photo is labelled; not when the recipe says so, or the training is short."""
    options = FinetuneOptions(folder=tmp_path, device=torch.device("cpu"), seed=0, scale=1.0)
    photos = (tiny_farm.labelled[:3], tiny_farm.labelled[3:])
    settings = ["net.encoder=mobilenetv3", "net.decoder_channels=8", "finetune.tile_px=64"]
    task = build_task(tiny_farm, photos, load_recipe("default", settings), options)
    assert [photo.name for photo in task.consistency.pool.photos] == [p.name for p in photos[0]]
    assert task.kept is task.consistency.teacher
    for setting in ("finetune.consistency_weight=0", "finetune.steps=199"):
        without = load_recipe("default", [*settings, setting])
        task = build_task(tiny_farm, photos, without, options)
        assert task.consistency is None
        assert task.kept is task.net


def test_the_picture_shows_three_tiles_in_four_panels(build, tiny_farm):
    """The first two panels of a row are the whole tile, the third hides some of its patches."""
    consistency, net = build("finetune.jitter=0")
    picture = consistency.picture(net, tiny_farm.classes)
    side, gap, strip = 256, 8, 34  # a tile of 64 px is enlarged four times
    assert picture.shape == (strip + 3 * side + 2 * gap, 4 * side + 3 * gap, 3)
    tile, masked = (picture[strip:, k * (side + gap) :][:side, :side][::4, ::4] for k in (0, 2))
    differs = (tile.astype(int) - masked).any(2)
    patches = differs.reshape(4, 16, 4, 16).mean((1, 3))
    assert ((patches == 0) | (patches > 0.5)).all()
    assert 0 < (patches > 0).sum() < 16
