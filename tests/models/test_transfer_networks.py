"""Networks from picture to picture: they keep sizes and tiles, and hear the style."""

import functools
import logging
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from assetgen.errors import ConfigInvalid
from assetgen.models.cyclegan import NORMS, CycleganGenerator, PatchDiscriminator, TransferConfig
from assetgen.models.parts import PaddedConv, baked, with_label_planes
from assetgen.models.stargan import StarganConfig, StarganDiscriminator, StarganGenerator

DOMAINS = 3
TRANSFER = TransferConfig(width=6, blocks=1)
STARGAN = StarganConfig(domains=DOMAINS, width=6, blocks=1, style=8)
STARS = {"stargan": "instance", "stargan-batch": "batch", "stargan-none": "none"}
NETWORKS = [*NORMS, *STARS]
every_network = pytest.mark.parametrize("name", NETWORKS)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(height=24, width=16, n=2, seed=0):
    return torch.rand(n, 3, height, width, generator=rng(seed)) * 2 - 1


def style(*labels):
    return torch.eye(DOMAINS)[list(labels)]


@functools.cache
def make(name, wrap=True):
    """A network as it is used, with statistics measured; do not change it."""
    torch.manual_seed(0)
    network = StarganGenerator(replace(STARGAN, wrap=wrap, norm=STARS[name])) if name in STARS else None
    network = network or CycleganGenerator(replace(TRANSFER, wrap=wrap, norm=name))
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # a plain mean, of one batch
    network(pictures(), *([style(0, 1)] if name in STARS else []))
    return network.eval().requires_grad_(False)


def paint(name, x, wrap=True):
    return make(name, wrap)(x, style(*[1, 2][: len(x)])) if name in STARS else make(name, wrap)(x)


def roll(x, rows, columns):
    return torch.roll(x, (rows, columns), dims=(2, 3))


@every_network
@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("size", [(8, 8), (12, 20), (32, 16)])
def test_pictures_keep_their_size_and_range(name, wrap, size):
    x = pictures(*size)
    y = paint(name, x, wrap)
    assert y.shape == x.shape
    assert y.abs().max() <= 1
    assert y.std(dim=(2, 3)).min() > 1e-3
    assert torch.equal(paint(name, x, wrap), y)


@every_network
def test_rolling_a_picture_by_its_stride_rolls_the_result(name):
    x = pictures()
    y = paint(name, x)
    for rows, columns in ((4, 8), (12, 4), (0, 4)):
        assert (paint(name, roll(x, rows, columns)) - roll(y, rows, columns)).abs().max() <= 1e-5


@every_network
def test_by_reflection_the_border_is_felt(name):
    x = pictures()
    rolled = paint(name, roll(x, 4, 8), wrap=False)
    assert (rolled - roll(paint(name, x, wrap=False), 4, 8)).abs().max() > 1e-3


@every_network
@pytest.mark.parametrize("shape", [(1, 3, 18, 16), (1, 3, 16, 30), (1, 3, 4, 16), (1, 4, 16, 16), (3, 16, 16)])
def test_edges_that_would_not_come_back_are_refused(name, shape):
    with pytest.raises(ValueError, match="multiples of 4, 8 or more; resize") as caught:
        paint(name, torch.zeros(shape))
    assert str(shape) in str(caught.value)


@every_network
def test_only_instance_norm_looks_at_the_whole_picture(name):
    """A change is seen at a place out of reach of the convolutions, 48 px away on a torus of 96 px, or it is not."""
    x = pictures(96, 96, n=1)
    changed = x.clone()
    changed[:, :, :4, :4] = 1.0
    far = (paint(name, changed) - paint(name, x)).abs()[:, :, 44:56, 44:56].max()
    assert (far > 1e-5) if name in ("instance", "stargan") else (far <= 1e-6)


def test_unknown_norms_are_refused():
    with pytest.raises(ConfigInvalid, match="no norm 'layer'") as caught:
        CycleganGenerator(replace(TRANSFER, norm="layer"))
    assert caught.value.hint == "choose from instance, pixel, batch, none"
    with pytest.raises(ConfigInvalid, match="no norm 'pixel'"):
        StarganGenerator(replace(STARGAN, norm="pixel"))
    with pytest.raises(ConfigInvalid, match="no norm 'batch'"):
        PatchDiscriminator(norm="batch")


def test_without_norms_it_begins_near_its_input_and_keeps_signals_alive():
    network = CycleganGenerator(TransferConfig(width=16, blocks=4, norm="none"))
    x = pictures(32, 32)
    with torch.no_grad():
        added = network(x) - torch.tanh(x)
    assert 0.005 < float(added.std()) < 0.5


def test_the_generator_of_the_paper_has_its_size():
    """11.38 million parameters at 64 channels and 9 blocks; 24 channels and 6 blocks make 1.11."""
    for width, blocks, millions in ((64, 9, 11.38), (24, 6, 1.11)):
        network = CycleganGenerator(TransferConfig(width=width, blocks=blocks))
        assert sum(value.numel() for value in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize(("halvings", "patch", "places"), [(3, 70, 14), (2, 34, 30)])
def test_a_patch_is_as_wide_as_the_paper_says(halvings, patch, places):
    """Without its norms, which look at everything, a logit depends on exactly 70x70 px."""
    torch.manual_seed(0)
    critic = PatchDiscriminator(width=2, halvings=halvings, norm="none")
    x = pictures(128, 128, n=1).requires_grad_(True)
    logits = critic(x)
    assert logits.shape == (1, 1, places, places)
    (gradient,) = torch.autograd.grad(logits[0, 0, places // 2, places // 2], x)
    rows, columns = gradient[0].abs().sum(dim=0).nonzero().T
    assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == patch


@pytest.mark.parametrize(("norm", "seen"), [("instance", False), ("none", True)])
def test_norms_hide_from_the_discriminator_how_contrasted_a_picture_is(norm, seen):
    torch.manual_seed(0)
    critic, x = PatchDiscriminator(width=8, norm=norm), pictures(64, 64, n=1)
    logits = [critic(contrast * x).detach() for contrast in (0.5, 1.0)]
    assert (float((logits[0] - logits[1]).abs().mean() / logits[1].std()) > 0.3) == seen


def test_patch_logits_have_the_shape_of_the_paper():
    assert PatchDiscriminator(width=2)(torch.zeros(2, 3, 256, 256)).shape == (2, 1, 30, 30)
    assert PatchDiscriminator(channels=6, width=2)(torch.zeros(2, 6, 32, 64)).shape == (2, 1, 2, 6)


def test_label_planes_are_lost_under_instance_norm_where_padding_wraps():
    """Why the style is no plane: a constant beside the picture moves only the mean, which the norm takes away."""
    x, norm = pictures(n=1), nn.InstanceNorm2d(8)

    def change(padding):
        torch.manual_seed(0)
        conv = PaddedConv(3 + DOMAINS, 8, 7, padding=padding)
        first, second = (norm(conv(with_label_planes(x, torch.tensor([label]), DOMAINS))) for label in (0, 1))
        return (first - second).abs().max()

    assert change("wrap") < 1e-4
    assert change("reflect") < 1e-4
    assert change("zeros") > 0.1


@pytest.mark.parametrize("name", STARS)
@pytest.mark.parametrize("wrap", [True, False])
def test_every_style_gives_a_picture_of_its_own(name, wrap):
    network, x = make(name, wrap), pictures(n=1)
    results = [network(x, style(label)) for label in range(DOMAINS)]
    for i in range(DOMAINS):
        assert (results[i] - results[i - 1]).abs().max() > 1e-2
    blend = network(x, 0.5 * (style(0) + style(1)))
    assert 0 < (blend - results[0]).abs().mean() < (results[1] - results[0]).abs().mean()


@pytest.mark.parametrize(("edge", "places"), [(16, 2), (32, 2), (128, 2)])
def test_the_stargan_discriminator_judges_patches_and_names_the_domain(edge, places):
    critic = StarganDiscriminator(DOMAINS, edge_px=edge, width=2)
    patches, domains = critic(pictures(edge, edge))
    assert patches.shape == (2, 1, places, places)
    assert domains.shape == (2, DOMAINS)
    assert len(critic.convs) == {16: 3, 32: 4, 128: 6}[edge]


@pytest.mark.parametrize("edge", [8, 48])
def test_edges_that_cannot_be_halved_to_the_end_are_refused(edge):
    with pytest.raises(ConfigInvalid, match=f"edge_px {edge}"):
        StarganDiscriminator(DOMAINS, edge_px=edge)


@every_network
def test_gradients_reach_every_parameter(name):
    torch.manual_seed(0)
    x = pictures(32, 32)
    if name in STARS:
        norm = "batch" if name == "stargan-batch" else "instance"
        network, critic = (
            StarganGenerator(replace(STARGAN, norm=norm)),
            StarganDiscriminator(DOMAINS, edge_px=32, width=4),
        )
        patches, domains = critic(network(x, style(0, 1)))
        score = patches.mean() + nn.functional.cross_entropy(domains, torch.tensor([0, 1]))
    else:
        network = CycleganGenerator(replace(TRANSFER, norm=name))
        critic = PatchDiscriminator(width=4)
        score = (critic(network(x)) - 1).square().mean()
    score.backward()
    for part in (network, critic):
        assert not [key for key, value in part.named_parameters() if value.grad is None or not value.grad.any()]


@pytest.mark.parametrize("name", ["batch", "stargan-none"])  # the norms of the others are in theirs and in the families
def test_exported_graphs_agree_at_sizes_not_traced(name, tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra export")
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    n = torch.export.Dim("n", min=1, max=16)
    h, w = (4 * torch.export.Dim(axis, min=2, max=512) for axis in "hw")
    inputs, shapes, names = [pictures(24, 32)], [{0: n, 2: h, 3: w}], ["x"]
    if name in STARS:
        inputs, shapes, names = [*inputs, style(0, 1)], [*shapes, {0: n}], [*names, "class_weights"]
    network, path = baked(make(name)), tmp_path / "generator.onnx"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, tuple(inputs), dynamo=True, opset_version=20, input_names=names, output_names=["y"],
            dynamic_shapes=tuple(shapes), verbose=False,
        ).save(path)  # fmt: skip
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not {operator for operator in operators if "Random" in operator} | (operators & {"If", "Loop", "Pad"})
    assert "BatchNormalization" not in operators  # folded
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in ((16, 40), (64, 12)):
        arrays = [pictures(*size, n=1), style(2)][: len(names)]
        (y,) = session.run(None, dict(zip(names, (array.numpy() for array in arrays), strict=True)))
        assert np.abs(y - network(*arrays).numpy()).max() <= 1e-4
