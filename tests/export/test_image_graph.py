"""Networks from picture to picture as they are served."""

import pytest
import torch

from assetgen.models import parts
from assetgen.models.cyclegan import Affine, CycleganGenerator, TransferConfig
from assetgen.models.layers import wrap_pad
from assetgen.models.stargan import StarganConfig, StarganGenerator
from export import image_graph
from export.image_graph import StyleGraph, example_pictures


def generator(norm, blocks=1):
    torch.manual_seed(0)
    made = CycleganGenerator(TransferConfig(width=4, blocks=blocks, norm=norm))
    for module in made.modules():
        if isinstance(module, torch.nn.Conv2d) and norm != "none":
            module.weight.data.mul_(4)
    if norm == "batch":
        made.train()
        with torch.no_grad():
            made(torch.rand(4, 3, 32, 32) * 2 - 1)
    return made


def star(norm):
    torch.manual_seed(0)
    made = StarganGenerator(StarganConfig(3, width=4, blocks=1, norm=norm))
    if norm == "batch":
        made.train()
        with torch.no_grad():
            made(torch.rand(4, 3, 32, 32) * 2 - 1, torch.eye(3)[[0, 1, 2, 0]])
    return made


@pytest.mark.parametrize(
    ("make", "norm", "classes"),
    [(generator, norm, 0) for norm in ("batch", "pixel", "instance", "none")]
    + [(star, norm, 3) for norm in ("batch", "instance", "none")],
)
@pytest.mark.parametrize("size", [(32, 48), (16, 16)])
def test_baking_changes_nothing(make, norm, classes, size):
    graph = StyleGraph(make(norm), classes)
    for module in graph.modules():
        if isinstance(module, Affine | torch.nn.BatchNorm2d) and getattr(module, "bias", None) is not None:
            module.bias.data.add_(0.1)
    baked, inputs = graph.baked(), example_pictures(2, *size, classes)
    assert (graph(*inputs)[0] - baked(*inputs)[0]).abs().max() <= 1e-5
    constant = (torch.nn.BatchNorm2d, Affine)
    assert not any(isinstance(module, constant) for module in baked.modules())
    assert any(isinstance(module, constant) for module in graph.modules()) is (norm in ("batch", "none"))


@pytest.mark.parametrize("blocks", [1, 3])
def test_baked_a_picture_is_continued_at_the_start_at_each_block_and_where_it_first_grows(monkeypatch, blocks):
    """Each time is a copy of all channels, as dear as a small convolution."""
    margins = []

    def counted(x, margin):
        margins.append(margin)
        return wrap_pad(x, margin)

    for module in (parts, image_graph):
        monkeypatch.setattr(module, "wrap_pad", counted)
    with torch.no_grad():
        StyleGraph(generator("none", blocks)).baked()(*example_pictures(1, 32, 32))
    assert margins == [6, *[2] * blocks, 2]


def test_values_are_in_0_to_1_and_shapes_stay():
    (image,) = example_pictures(2, 16, 40)
    assert 0 <= image.min() < image.max() <= 1
    (made,) = StyleGraph(generator("pixel"))(image)
    assert made.shape == image.shape
    assert 0 <= made.min() < made.max() <= 1


@pytest.mark.parametrize(("norm", "is_local"), [("batch", True), ("none", True), ("pixel", True)])
def test_only_statistics_of_the_whole_picture_keep_from_windows(norm, is_local):
    assert StyleGraph(generator(norm)).is_local is is_local
    assert StyleGraph(star("batch"), 3).is_local
    assert not StyleGraph(star("instance"), 3).is_local


@pytest.mark.parametrize("blocks", [1, 3])
def test_no_pixel_sees_further_than_the_halo_and_some_see_nearly_so_far(blocks):
    graph = StyleGraph(generator("batch", blocks)).baked()
    halo = graph.halo_px
    edge = 4 * halo
    image = torch.rand(1, 3, edge, edge, generator=torch.Generator().manual_seed(0))
    reached = 0
    for place in range(2 * halo, 2 * halo + 4):  # at every place within a stride
        other = image.clone()
        other[:, :, place, place] = 1 - other[:, :, place, place]
        with torch.no_grad():
            changed = (graph(image)[0] != graph(other)[0]).any(dim=1)[0].nonzero()
        reached = max(reached, int((changed - place).abs().max()))
    assert halo - 12 <= reached <= halo


def test_examples_are_blends_of_classes_and_the_same_at_every_call():
    first, second = (example_pictures(3, 16, 16, classes=4, seed=2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.allclose(first[1].sum(dim=1), torch.ones(3))
