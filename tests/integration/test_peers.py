"""The comparison with other networks: equal treatment, first weights, lines, timing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from weedseg.bench.lines import read_lines
from weedseg.bench.peers import ARMS, PeersPlan, quick_comparison, run_peers
from weedseg.bench.peers_nets import PEERS, build_peer, start_heads
from weedseg.bench.peers_table import peers_table
from weedseg.bench.peers_timing import SHIPPED, Timing, time_in_turns, time_peers
from weedseg.cli import app
from weedseg.errors import ConfigError
from weedseg.nets.encoders import has_imagenet_weights

pytest.importorskip("segmentation_models_pytorch", reason="the extra peers is not installed")


@pytest.mark.parametrize("name", PEERS)
def test_every_network_starts_at_the_class_shares(name: str) -> None:
    net = build_peer(name, 3, "none", seed=1).eval()
    log_shares = torch.tensor([0.9, 0.09, 0.01]).log()
    start_heads(net, log_shares)
    with torch.no_grad():
        for head in getattr(net, "heads", None) or (net.head,):
            head.weight.zero_()
        logits = net(torch.rand(1, 3, 64, 96))
    assert logits.shape == (1, 3, 64, 96)
    torch.testing.assert_close(logits, log_shares.view(1, 3, 1, 1).expand_as(logits))


def test_same_seed_gives_the_same_first_weights() -> None:
    first, again, other = (build_peer("unet", 3, "none", seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.skipif(not has_imagenet_weights("lite0"), reason="ImageNet weights not installed")
@pytest.mark.parametrize("name", ["unet", "fpn"])
def test_imagenet_encoders_compute_the_very_same_features(name: str) -> None:
    ours, theirs = (build_peer(net, 3, "imagenet", 0).eval() for net in ("ours", name))
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        expected = ours.encoder.backbone(images)
        found = theirs.body.encoder(images)[1:]
    assert len(found) == len(expected) == 5
    assert all(torch.equal(a, b) for a, b in zip(found, expected))


def test_imagenet_weights_for_another_encoder_are_a_sentence() -> None:
    with pytest.raises(ConfigError, match="unet-resnet34 from ImageNet; expected an encoder lite0"):
        build_peer("unet-resnet34", 3, "imagenet", 0)


def test_arms_train_alike_resume_and_are_timed_in_one_run() -> None:
    with quick_comparison(("ours", "unet")) as plan:
        assert run_peers(plan) == 2
        assert run_peers(plan) == 0
        lines = read_lines(plan.lines)
        assert [line["arm"] for line in lines] == ["ours", "unet"]
        assert {line["steps"] for line in lines} == {2}
        assert all(set(line["counts"]) == set(plan.dataset.test) for line in lines)
        names = {photo.name for photo in plan.dataset.split(0, 0).train}
        assert not names & set(plan.dataset.test)
        timing = time_peers(plan, Timing(tile_px=64, rounds=2))
        with pytest.raises(ConfigError, match="no weights of 'fpn'"):
            time_peers(_with_arms(plan, ("fpn",)), Timing(tile_px=64))
    networks = timing["networks"]
    assert set(networks) == {"ours", SHIPPED, "unet"}
    assert networks["ours"]["macs"] < networks["unet"]["macs"]
    assert networks["ours"]["max_abs_logit_difference"] < 1e-3
    assert networks["unet"]["max_abs_logit_difference"] < 1e-3
    assert [len(found["ms_rounds"]) for found in networks.values()] == [2, 2, 2]
    assert "| U-Net lite0 (SMP) | scratch | 5.20 M |" in peers_table(lines, timing)


def _with_arms(plan: PeersPlan, arms: tuple[str, ...]) -> PeersPlan:
    return PeersPlan(**{**vars(plan), "arms": arms})


def test_unknown_arm_is_a_sentence() -> None:
    with (
        quick_comparison(("unet+X",)) as plan,
        pytest.raises(ConfigError, match=r"arm 'unet\+X'; expected one of ours, lraspp"),
    ):
        run_peers(plan)


def test_arms_are_listed_seed_by_seed() -> None:
    with quick_comparison(ARMS) as plan:
        runs = list(PeersPlan(**{**vars(plan), "seeds": 2}).runs())
    assert runs == [(arm, seed) for seed in (0, 1) for arm in ARMS]
    assert ARMS[-3:] == ("ours+I", "unet+I", "fpn+I")


def test_turns_are_timed_alike() -> None:
    calls = {"a": 0, "b": 0}

    def count(name: str) -> None:
        calls[name] += 1

    times = time_in_turns({"a": lambda: count("a"), "b": lambda: count("b")}, rounds=3)
    assert calls == {"a": 15, "b": 15}
    assert [len(rounds) for rounds in times.values()] == [3, 3]


def test_without_photos_the_command_says_what_to_give(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "peers", "--out", str(tmp_path)])
    assert isinstance(done.exception, ConfigError)
    assert "no --data" in done.exception.found
