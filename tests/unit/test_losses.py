"""Losses for few labels: ignored pixels, absent classes, sums over the batch."""

import pytest
import torch
from torch.nn import functional

from weedseg.finetuning.losses import class_weights, jaccard_loss, weighted_cross_entropy


def batch(num_classes=3, seed=0, size=(2, 6, 7)):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size[0], num_classes, *size[1:], generator=generator)
    mask = torch.randint(0, num_classes, size, generator=generator)
    return logits.requires_grad_(), mask


def cross_entropy(logits, mask):
    return weighted_cross_entropy(logits, mask, torch.linspace(1, 2, logits.shape[1]))


both = pytest.mark.parametrize("loss", [cross_entropy, jaccard_loss])


@both
def test_ignored_pixels_count_for_nothing(loss):
    logits, mask = batch()
    mask[0, :3] = 255
    changed = logits.detach().clone()
    changed[0, :, :3] = 50 * torch.randn(3, 3, 7, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(loss(changed, mask), loss(logits, mask))
    loss(logits, mask).backward()
    assert not logits.grad[0, :, :3].any()
    assert logits.grad[0, :, 3:].any()


@both
@pytest.mark.parametrize("num_classes", [2, 3, 40])
def test_a_batch_that_is_all_ignored_is_worth_nothing(loss, num_classes):
    logits, mask = batch(num_classes)
    mask[:] = 255
    value = loss(logits, mask)
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@both
def test_a_certain_and_right_answer_costs_nothing(loss):
    _, mask = batch()
    logits = 40.0 * functional.one_hot(mask, 3).permute(0, 3, 1, 2)
    assert loss(logits, mask).item() == pytest.approx(0, abs=1e-5)


@both
@pytest.mark.parametrize("num_classes", [2, 17, 250])
def test_any_number_of_classes(loss, num_classes):
    logits, mask = batch(num_classes)
    value = loss(logits, mask)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.any()


def test_an_absent_class_adds_nothing_to_the_jaccard_loss():
    logits, mask = batch()
    mask[mask == 2] = 1
    shares = logits.softmax(1)
    ious = []
    for number in (0, 1):
        true = (mask == number).float()
        both = (shares[:, number] * true).sum()
        ious.append(both / (shares[:, number].sum() + true.sum() - both))
    torch.testing.assert_close(jaccard_loss(logits, mask), 1 - sum(ious) / 2)


def test_a_class_that_never_occurs_has_no_target_in_the_cross_entropy():
    logits, mask = batch()
    mask[mask == 2] = 1
    weights = torch.tensor([1.0, 2.0, 7.0])
    heavier = torch.tensor([1.0, 2.0, 70.0])
    torch.testing.assert_close(
        weighted_cross_entropy(logits, mask, weights), weighted_cross_entropy(logits, mask, heavier)
    )


def test_the_cross_entropy_is_torchs_weighted_mean():
    logits, mask = batch()
    mask[1, 2] = 255
    weights = torch.tensor([0.5, 1.0, 4.0])
    wanted = functional.cross_entropy(logits, mask, weight=weights, ignore_index=255)
    torch.testing.assert_close(weighted_cross_entropy(logits, mask, weights), wanted)


def test_extreme_logits_stay_finite():
    logits, mask = batch()
    wild = (logits.detach() * 1e4).requires_grad_()
    value = cross_entropy(wild, mask) + jaccard_loss(wild, mask)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(wild.grad).all()


def test_rare_classes_weigh_more_but_not_without_limit():
    weights = class_weights(torch.tensor([9_900.0, 99.0, 1.0, 0.0]))
    assert weights[0] < weights[1] < weights[2] <= 10
    assert weights[3] == 1
    assert weights[1] / weights[0] == pytest.approx(10, rel=1e-3)
    assert class_weights(torch.tensor([1e9, 1.0, 1.0, 1.0])).max() <= 10


def test_weights_average_to_one_over_the_classes_present():
    weights = class_weights(torch.tensor([60.0, 30.0, 0.0, 10.0]))
    assert weights[[0, 1, 3]].mean().item() == pytest.approx(1)


def test_weights_without_any_pixel_are_even():
    assert class_weights(torch.zeros(3)).tolist() == [1, 1, 1]
