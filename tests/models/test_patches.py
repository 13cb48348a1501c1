"""PatchNCE: closed forms, no gradient to what was there before, and heads that are whole from the start."""

import math

import pytest
import torch

from assetgen.models.cyclegan import CycleganGenerator, TransferConfig
from assetgen.models.patches import (
    PatchHeads,
    cut_border,
    draw_places,
    encode,
    encoded_blocks,
    nce_distance,
    patch_nce,
)

CONFIG = TransferConfig(width=4, blocks=3)


@pytest.fixture
def networks():
    torch.manual_seed(0)
    return CycleganGenerator(CONFIG), PatchHeads(CONFIG, dimension=16)


def rng():
    return torch.Generator().manual_seed(3)


def test_patch_nce_of_places_that_share_nothing_is_a_closed_form():
    rows = torch.eye(5)[None].expand(2, -1, -1)
    expected = math.log(1 + 4 * math.exp(-1 / 0.5))
    assert float(patch_nce(rows, rows, temperature=0.5)) == pytest.approx(expected)


def test_patch_nce_of_places_that_are_all_alike_is_that_of_a_guess():
    rows = torch.ones(2, 7, 4) / 2
    assert float(patch_nce(rows, rows)) == pytest.approx(math.log(7))


def test_negatives_are_of_the_same_picture():
    first, second = torch.eye(4)[None], torch.eye(4).flip(0)[None]
    pair = torch.cat([first, second])
    assert float(patch_nce(pair, pair)) == pytest.approx(float(patch_nce(first, first)))


def test_no_gradient_flows_to_keys():
    query, key = torch.randn(1, 4, 8, requires_grad=True), torch.randn(1, 4, 8, requires_grad=True)
    patch_nce(query, key).backward()
    assert key.grad is None
    assert float(query.grad.abs().sum()) > 0


def test_the_paper_compares_the_first_and_the_fifth_of_nine_blocks():
    assert encoded_blocks(TransferConfig(blocks=9)) == (0, 4)
    assert encoded_blocks(TransferConfig(blocks=1)) == (0,)


def test_features_are_of_five_depths_and_the_heads_fit_them(networks):
    generator, heads = networks
    features = encode(generator, torch.randn(2, 3, 16, 16))
    assert [feature.shape[2] for feature in features] == [16, 8, 4, 4, 4]
    places = draw_places(features, rng(), count=20)
    assert [len(chosen) for chosen in places] == [20, 20, 16, 16, 16]
    assert all(len(set(chosen.tolist())) == len(chosen) for chosen in places)
    for rows, chosen in zip(heads(features, places), places, strict=True):
        assert rows.shape == (2, len(chosen), 16)
        assert torch.allclose(rows.norm(dim=2), torch.ones(2, len(chosen)), atol=1e-5)


def test_the_encoder_is_that_of_the_generator(networks):
    generator, _ = networks
    seen = []
    generator.blocks[1].register_forward_hook(lambda _module, _given, made: seen.append(made))
    x = torch.randn(1, 3, 16, 16)
    generator(x)
    assert torch.equal(encode(generator, x)[-1], seen[0])


def test_a_picture_is_nearest_to_itself_and_its_mirror_image_to_a_mirrored_one(networks):
    generator, heads = networks
    x = torch.randn(2, 3, 32, 32)
    generator.requires_grad_(False)
    heads.requires_grad_(False)
    itself, other = (float(nce_distance(generator, heads, x, y, rng())) for y in (x, torch.randn(2, 3, 32, 32)))
    assert itself < other
    mirrored, unmirrored = (
        float(nce_distance(generator, heads, x, x.flip(3), rng(), flipped=f)) for f in (True, False)
    )
    assert mirrored < unmirrored


def test_a_border_is_cut_off_every_side():
    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    assert cut_border(x, 3).flatten().tolist() == [27, 28, 35, 36]
    assert torch.equal(cut_border(x, 0), x)


def test_places_on_the_border_are_not_looked_at(networks):
    generator, heads = networks
    generator.requires_grad_(False)
    heads.requires_grad_(False)
    x = torch.zeros(1, 3, 16, 16)
    x[:, :, 6:10, 6:10] = torch.randn(3, 4, 4)
    inside = nce_distance(generator, heads, x, x, rng(), border_px=4)
    # Of 256 places 12 of 16 rows and columns are flat: they cannot be told apart unless they are left out.
    assert float(inside) < float(nce_distance(generator, heads, x, x, rng()))


def test_the_generator_and_all_heads_learn(networks):
    generator, heads = networks
    x = torch.randn(1, 3, 16, 16)
    nce_distance(generator, heads, x, generator(x), rng()).backward()
    for module in networks:
        assert [name for name, parameter in module.named_parameters() if parameter.grad is None] == []
