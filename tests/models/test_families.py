"""Every family of picture generators, in every variant: shapes, classes, gradients, tiling and export."""

import copy
import functools
import logging
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from assetgen.errors import ConfigInvalid
from assetgen.models import biggan, parts, progressive
from assetgen.models.families import FAMILIES, PictureConfig, baked, standing_statistics
from assetgen.models.layers import Conv, Dense

CLASSES, LATENT, EDGE, N = 3, 10, 16, 4
TINY = PictureConfig(classes=CLASSES, edge_px=EDGE, latent=LATENT, width=4)
CASES = [
    (name, conditioning, wrap)
    for name, family in FAMILIES.items()
    for conditioning in family.conditionings
    for wrap in ((True, False) if family.wraps else (False,))
]
LABELS = torch.tensor([0, 1, 2, 0])
every_variant = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
every_family = pytest.mark.parametrize("name", FAMILIES)


def config_of(name, conditioning="", wrap=True):
    family = FAMILIES[name]
    return replace(TINY, conditioning=conditioning or family.conditionings[0], wrap=wrap and family.wraps)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs(seed=0, n=N):
    return torch.randn(n, LATENT, generator=rng(seed)), torch.eye(CLASSES)[LABELS[torch.arange(n) % N]]


def hear_attention(network):
    """It starts silent, which would hide what stands behind it."""
    for part in network.modules():
        if isinstance(part, biggan.Attention):
            part.strength.data.fill_(0.5)


def make(name, conditioning="", wrap=True):
    """Fresh networks: generator, discriminator."""
    torch.manual_seed(0)
    family, config = FAMILIES[name], config_of(name, conditioning, wrap)
    networks = family.generator(config), family.discriminator(config)
    for network in networks:
        hear_attention(network)
    return networks


@functools.cache
def used(name, conditioning="", wrap=True):
    """Networks as they are used, with statistics measured; do not change them."""
    generator, discriminator = make(name, conditioning, wrap)
    standing_statistics(generator, [inputs(seed) for seed in range(4)])
    return generator.eval().requires_grad_(False), discriminator.eval().requires_grad_(False)


def roll(x, rows, columns):
    return torch.roll(x, (rows, columns), dims=(2, 3))


@every_variant
def test_pictures_and_logits_have_their_shapes_and_ranges(case):
    generator, discriminator = used(*case)
    pictures = generator(*inputs())
    assert pictures.shape == (N, 3, EDGE, EDGE)
    assert pictures.abs().max() <= 1
    assert pictures.std(dim=0).max() > 1e-3  # z is heard
    assert torch.equal(generator(*inputs()), pictures)
    logits, class_logits = discriminator(pictures, LABELS)
    assert logits.shape == (N,)
    assert (class_logits is None) == (case[1] != "auxiliary")
    assert class_logits is None or class_logits.shape == (N, CLASSES)


@every_variant
def test_the_class_is_heard_wherever_there_is_conditioning(case):
    generator, discriminator = used(*case)
    z, weights = inputs()
    pictures = generator(z, weights)
    change = (generator(z, weights.roll(1, 1)) - pictures).abs().max()
    assert (change > 1e-3) if case[1] != "none" else (change == 0)
    reading = (discriminator(pictures, (LABELS + 1) % CLASSES)[0] - discriminator(pictures, LABELS)[0]).abs().max()
    assert (reading > 1e-5) if case[1] in {"concat", "projection"} else (reading == 0)


@every_variant
def test_blended_classes_give_pictures_of_their_own(case):
    generator, _ = used(*case)
    z, _ = inputs()
    whole, blend, other = (
        generator(z, torch.tensor([row]).expand(N, -1)) for row in ([1.0, 0, 0], [0.5, 0.5, 0], [0, 1.0, 0])
    )
    near, far = (blend - whole).abs().mean(), (other - whole).abs().mean()
    assert (0 < near < far) if case[1] != "none" else (near == far == 0)


@every_variant
def test_gradients_reach_every_parameter(case):
    """One step of the hinge loss for the generator, with the class told where the discriminator tells it."""
    generator, discriminator = make(*case)
    for stage in (1.0, 0.5, 2.0) if case[0] == "progressive" else (None,):
        if stage is not None:
            generator.set_stage(stage)
            discriminator.set_stage(stage)
        logits, class_logits = discriminator(generator(*inputs()), LABELS)
        (-logits.mean() + (0 if class_logits is None else F.cross_entropy(class_logits, LABELS))).backward()
    for network in (generator, discriminator):
        lost = [key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()]
        assert not lost
        assert all(value.grad.isfinite().all() for value in network.parameters())


@every_family
def test_hinge_steps_of_the_discriminator_tell_reals_from_fakes(name):
    """A few steps on two fixed batches; the fakes are the generator's, the reals flat."""
    generator, discriminator = make(name)
    fakes, reals = generator(*inputs()).detach(), torch.full((N, 3, EDGE, EDGE), 0.5)
    optimiser = torch.optim.Adam(discriminator.parameters(), 2e-3, betas=(0.0, 0.99))
    gaps = []
    for _ in range(8):
        real, fake = discriminator(reals, LABELS)[0], discriminator(fakes, LABELS)[0]
        gaps.append(float((real - fake).mean().detach()))
        optimiser.zero_grad()
        (F.relu(1 - real).mean() + F.relu(1 + fake).mean()).backward()
        optimiser.step()
    assert gaps[-1] > gaps[0] + 0.1


@pytest.mark.parametrize("case", [case for case in CASES if case[2]], ids=lambda case: "-".join(map(str, case)))
def test_rolling_the_first_feature_map_rolls_the_picture(case):
    generator, _ = used(*case)
    z, weights = inputs()
    features = generator.start(z, weights)
    picture = generator.paint(features, z, weights)
    assert features.shape[2:] == (4, 4)
    assert picture.std(dim=(2, 3)).max() > 1e-3  # a flat picture would roll, too
    assert torch.equal(picture, generator(z, weights))
    for rows, columns in ((1, 2), (3, 0)):
        rolled = generator.paint(roll(features, rows, columns), z, weights)
        assert (rolled - roll(picture, rows * EDGE // 4, columns * EDGE // 4)).abs().max() <= 1e-5


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.wraps])
def test_without_wrapping_the_border_is_felt(name):
    generator, _ = used(name, wrap=False)
    z, weights = inputs()
    features = generator.start(z, weights)
    rolled = generator.paint(roll(features, 1, 2), z, weights)
    assert (rolled - roll(generator.paint(features, z, weights), EDGE // 4, EDGE // 2)).abs().max() > 1e-3


@every_family
@pytest.mark.parametrize(
    "change", [{"edge_px": 24}, {"edge_px": 8}, {"classes": 0}, {"conditioning": "both"}, {"conditioning": ""}]
)
def test_configs_that_cannot_be_built_are_refused(name, change):
    config = replace(config_of(name), **change)
    for build in (FAMILIES[name].generator, FAMILIES[name].discriminator):
        with pytest.raises(
            ConfigInvalid, match=f"{next(iter(change)).replace('_', '.')}.*{next(iter(change.values()))}"
        ):
            build(config)


def test_a_perceptron_does_not_tile_and_says_so():
    for build in (FAMILIES["vanilla"].generator, FAMILIES["vanilla"].discriminator):
        with pytest.raises(ConfigInvalid, match="vanilla has no tileable variant"):
            build(replace(TINY, conditioning="none"))


@every_family
def test_baking_changes_nothing_but_the_form(name):
    generator, discriminator = used(name)
    z, weights = inputs()
    folded = baked(generator)
    assert (folded(z, weights) - generator(z, weights)).abs().max() <= 1e-5
    assert not [key for key in folded.state_dict() if "parametrizations" in key]
    assert all(part.scale == 1 for part in folded.modules() if isinstance(part, (Conv, Dense)))
    pictures = generator(z, weights)
    critic = baked(discriminator)
    assert not [key for key in critic.state_dict() if "parametrizations" in key]
    assert (critic(pictures, LABELS)[0] - discriminator(pictures, LABELS)[0]).abs().max() <= 1e-4
    copy.deepcopy(generator).train()(z, weights)  # a copy baked leaves others as they were


@every_family
def test_exported_graphs_are_plain_and_agree_at_batches_not_traced(name, tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra export")
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    generator = baked(used(name)[0])
    path = tmp_path / "generator.onnx"
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    batch = torch.export.Dim("n", min=1, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            generator, inputs(n=2), dynamo=True, opset_version=20, input_names=["z", "class_weights"],
            output_names=["picture"], dynamic_shapes=({0: batch}, {0: batch}), verbose=False,
        ).save(path)  # fmt: skip
    graph = onnx.load(path).graph
    operators = {node.op_type for node in graph.node}
    assert not {operator for operator in operators if "Random" in operator} | (operators & {"If", "Loop", "Pad"})
    given = {value.name for value in graph.input}
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for n in (1, 5):
        z, weights = inputs(seed=n, n=n)
        feeds = {"z": z.numpy(), "class_weights": weights.numpy()}
        (picture,) = session.run(None, {key: value for key, value in feeds.items() if key in given})
        assert np.abs(picture - generator(z, weights).numpy()).max() <= 1e-4


def test_standing_statistics_are_the_mean_over_the_batches():
    """The first norm of the residual generator sees the first feature map as it is."""
    generator, _ = make("resnet", "none")
    generator.eval()
    batches = [inputs(seed, n=8) for seed in range(3)]
    standing_statistics(generator, batches)
    norm = generator.blocks[0].norm.norm
    maps = [generator.start(*batch).detach() for batch in batches]
    assert torch.allclose(norm.running_mean, sum(x.mean(dim=(0, 2, 3)) for x in maps) / 3, atol=1e-6)
    assert torch.allclose(norm.running_var, sum(x.var(dim=(0, 2, 3)) for x in maps) / 3, atol=1e-6)
    assert not generator.training
    assert norm.momentum == 0.1
    with pytest.raises(ValueError, match="got none"):
        standing_statistics(generator, [])


def test_standing_statistics_settle_spectral_norm_first():
    """Weights moved under a network that was never run leave power vectors that fit nothing."""
    generator, _ = make("biggan")
    with torch.no_grad():
        for value in generator.parameters():
            value.copy_(torch.randn(value.shape, generator=rng(value.numel())) if value.ndim > 1 else value)
    generator.eval()
    standing_statistics(generator, [inputs(seed, n=8) for seed in range(16)])
    convs = [part.conv for part in generator.modules() if isinstance(part, parts.PaddedConv)]
    norms = [torch.linalg.matrix_norm(conv.weight.flatten(1), 2).item() for conv in convs]
    assert norms == pytest.approx([1] * len(norms), abs=0.05)
    calm, _ = generator(*inputs(99, n=64)), generator.train()
    assert (calm - generator(*inputs(99, n=64))).abs().mean() < 0.1


# ---- BigGAN ----


@settings(max_examples=25)
@given(bound=st.floats(0.05, 3), seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40))
def test_truncated_latents_stay_within_and_repeat(bound, seed, n):
    z = biggan.truncated_latent(np.random.default_rng(seed), n, 7, bound)
    assert z.shape == (n, 7)
    assert z.dtype == np.float32
    assert np.abs(z).max() <= np.float32(bound)
    assert np.array_equal(z, biggan.truncated_latent(np.random.default_rng(seed), n, 7, bound))


def test_truncated_latents_are_normal_within_the_bound():
    """The variance of a normal cut at 1 is 1 - 2 phi(1) / (2 Phi(1) - 1) = 0.2911."""
    z = biggan.truncated_latent(np.random.default_rng(0), 5000, 20, 1.0)
    assert z.mean() == pytest.approx(0, abs=0.01)
    assert z.var() == pytest.approx(0.2911, abs=0.005)


@pytest.mark.parametrize("bound", [0.0, -1.0, 0.001, float("nan")])
def test_bounds_that_let_nothing_through_are_refused(bound):
    with pytest.raises(ConfigInvalid, match="truncation"):
        biggan.truncated_latent(np.random.default_rng(0), 1, 1, bound)


def test_the_orthogonal_penalty_is_known_by_hand():
    """Rows (1, 2), (3, 4): their product 11 stands twice off the diagonal. A convolution's filters are its rows."""
    layer = torch.nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[1.0, 2], [3, 4]])
    conv = torch.nn.Conv2d(1, 2, (1, 2))
    conv.weight.data = layer.weight.data.reshape(2, 1, 1, 2).clone()
    assert biggan.orthogonal_penalty(layer).item() == 2 * 11**2
    assert biggan.orthogonal_penalty(torch.nn.Sequential(layer, conv, torch.nn.Embedding(9, 9))).item() == 4 * 11**2
    assert biggan.orthogonal_penalty(parts.ClassEmbedding(4, 4)).item() == 0


def test_the_orthogonal_penalty_sees_the_weights_that_are_trained():
    generator, _ = make("biggan")
    assert biggan.orthogonal_penalty(generator) < 1e3
    generator.color.conv.parametrizations.weight.original.data.mul_(100)
    before = biggan.orthogonal_penalty(generator)
    before.backward()
    assert generator.blocks[0].conv.conv.parametrizations.weight.original.grad is not None
    assert generator.embed.table.grad is None


def test_each_chunk_of_the_latent_reaches_the_picture():
    generator, _ = used("biggan")
    z, weights = inputs()
    assert generator.chunks == [4, 3, 3]
    picture, start = generator(z, weights), generator.start(z, weights)
    for at, size in ((0, 4), (4, 3), (7, 3)):
        moved = z.clone()
        moved[:, at : at + size] += 1
        assert (generator(moved, weights) - picture).abs().max() > 1e-3
        assert torch.equal(generator.start(moved, weights), start) == (at > 0)


def test_a_latent_with_too_few_numbers_for_the_blocks_is_refused():
    with pytest.raises(ConfigInvalid, match="latent 2 is too small") as caught:
        FAMILIES["biggan"].generator(replace(config_of("biggan"), latent=2))
    assert caught.value.hint == "give 3 or more"


# ---- Progressive ----


def grown(stage, **change):
    generator, discriminator = make("progressive", **change)
    for network in (generator, discriminator):
        network.set_stage(stage)
    return generator.eval().requires_grad_(False), discriminator.eval().requires_grad_(False)


@pytest.mark.parametrize(("stage", "edge"), [(0, 4), (0.01, 8), (1, 8), (1.5, 16), (2, 16)])
@pytest.mark.parametrize("conditioning", ["concat", "auxiliary"])
def test_both_networks_and_the_reals_have_the_edge_of_the_stage(stage, edge, conditioning):
    generator, discriminator = grown(stage, conditioning=conditioning)
    pictures = generator(*inputs())
    assert pictures.shape == (N, 3, edge, edge)
    assert progressive.at_stage(torch.zeros(N, 3, EDGE, EDGE), stage).shape == pictures.shape
    assert discriminator(pictures, LABELS)[0].shape == (N,)
    with pytest.raises(ValueError, match=f"expected edges of {edge} px"):
        discriminator(torch.zeros(N, 3, 2 * edge, 2 * edge), LABELS)


@pytest.mark.parametrize("stage", [0, 1])
def test_a_new_resolution_begins_as_the_old_one(stage):
    """At the start of a fade pictures are those of before, doubled, and the discriminator thinks of them the same."""
    before, judged_before = grown(stage)
    after, judged_after = grown(stage + 1e-4)
    small = before(*inputs())
    assert (after(*inputs()) - parts.nearest_up(small)).abs().max() < 1e-3
    large = parts.nearest_up(small)
    assert (judged_after(large, LABELS)[0] - judged_before(small, LABELS)[0]).abs().max() < 1e-2
    reals = torch.rand(N, 3, EDGE, EDGE, generator=rng())
    faint = progressive.at_stage(reals, stage + 1e-4)
    assert (faint - parts.nearest_up(progressive.at_stage(reals, stage))).abs().max() < 1e-3


def test_reals_of_a_stage_are_known_by_hand():
    """A chessboard of -1 and 1 has the mean 0: half faded it is half as strong, a stage before it is gone."""
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    reals = board.expand(2, 3, 16, 16)
    assert torch.equal(progressive.at_stage(reals, 2), reals)
    assert torch.allclose(progressive.at_stage(reals, 1.5), reals / 2)
    assert torch.equal(progressive.at_stage(reals, 1), torch.zeros(2, 3, 8, 8))


def test_the_stage_travels_with_the_weights():
    generator, _ = grown(0.5)
    other, _ = grown(2)
    other.load_state_dict(generator.state_dict())
    assert torch.equal(other(*inputs()), generator(*inputs()))


@pytest.mark.parametrize("stage", [-0.1, 2.1, float("nan")])
def test_stages_out_of_range_are_refused(stage):
    generator, discriminator = make("progressive")
    reals = torch.zeros(1, 3, 16, 16)
    for use in (generator.set_stage, discriminator.set_stage, lambda stage: progressive.at_stage(reals, stage)):
        with pytest.raises(ConfigInvalid, match="stage") as caught:
            use(stage)
        assert caught.value.hint == "give 0 to 2"


def test_the_discriminator_sees_how_much_pictures_differ():
    """Minibatch deviation (Karras et al. 2018): of -1 and 1 in turn it is 1, of equal pictures nearly 0."""
    turns = torch.tensor([-1.0, 1, -1, 1, 3, 3, 3, 3])[:, None, None, None].expand(8, 2, 4, 4)
    plane = parts.batch_deviation(turns)
    assert plane.shape == (8, 1, 4, 4)
    assert torch.allclose(plane[:4], torch.tensor(1.0), atol=1e-3)
    assert (plane[4:] < 1e-3).all()
    assert torch.allclose(parts.batch_deviation(turns[:2]), torch.tensor(1.0), atol=1e-3)


GROUPED = PictureConfig(
    classes=CLASSES, channels=4, edge_px=32, latent=LATENT, width=4, wrap=False, conditioning="projection", groups=2
)


def test_groups_of_pixels_make_the_same_size_with_a_level_less():
    whole = biggan.BigganGenerator(replace(GROUPED, groups=1))
    grouped = biggan.BigganGenerator(GROUPED)
    assert grouped(*inputs()).shape == whole(*inputs()).shape == (N, 4, 32, 32)
    assert len(grouped.blocks) == len(whole.blocks) - 1


def test_detail_of_a_group_is_channels_of_one_place():
    torch.manual_seed(0)
    generator = biggan.BigganGenerator(GROUPED).eval()
    generator.bake()
    generator.detail_strength.data.fill_(1.0)
    before = generator(*inputs())
    generator.detail.conv.weight.data[3 * 4] *= -1.0  # alpha of the upper left pixel of each group
    changed = (generator(*inputs()) - before).abs()[0].detach()
    assert changed[3, ::2, ::2].mean() > 0.001
    changed[:, ::2, ::2] = 0
    assert changed.max() == 0


@pytest.mark.parametrize("groups", [2, 4])
def test_groups_start_as_one_smooth_picture(groups):
    torch.manual_seed(0)
    generator = biggan.BigganGenerator(replace(GROUPED, groups=groups, edge_px=64, channels=3)).eval()
    made = generator(*inputs()).detach()
    steps = made.diff(dim=3).abs().mean(dim=(0, 1, 2))
    between = steps[groups - 1 :: groups].mean()
    within = torch.stack([steps[place::groups].mean() for place in range(groups - 1)])
    assert (within > 0.5 * between).all(), "no blocks"
    assert (within < 1.2 * between).all(), "no grid"
    generator.bake()
    generator.detail.conv.weight.data.normal_()
    assert torch.allclose(generator(*inputs()), made, atol=1e-6), "detail is for later"


def test_the_discriminator_takes_groups_apart_as_the_generator_puts_them_together():
    discriminator = biggan.BigganDiscriminator(GROUPED).eval()
    picture = torch.randn(N, 4, 32, 32, generator=rng())
    swapped = picture.clone()
    swapped[:, :, ::2, ::2] = picture[:, :, 1::2, 1::2]
    assert discriminator(picture, LABELS)[0].shape == (N,)
    assert not torch.allclose(discriminator(picture, LABELS)[0], discriminator(swapped, LABELS)[0])
    assert discriminator.blocks[0].conv.conv.weight.shape[1] == 4 + 16


def test_the_discriminator_is_shown_a_grid_apart_from_the_picture():
    seen = []
    discriminator = biggan.BigganDiscriminator(GROUPED).eval()
    discriminator.blocks[0].register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    picture = torch.nn.functional.interpolate(torch.randn(N, 4, 16, 16, generator=rng()), scale_factor=2.0)
    grid = picture.clone()
    grid[:, :, ::2, ::2] += 0.03
    grid[:, :, 1::2, 1::2] -= 0.03
    discriminator(picture, LABELS), discriminator(grid, LABELS)
    assert torch.allclose(seen[0][:, :4], seen[1][:, :4], atol=1e-6)
    assert seen[0][:, 4:].abs().max() < 1e-5
    assert seen[1][:, 4:].abs().mean() == pytest.approx(0.03, rel=0.01)  # half of the pixels, twice as far


def test_with_alpha_no_pixel_has_more_colour_than_cover_and_a_fresh_network_shows_little():
    torch.manual_seed(0)
    made = biggan.BigganGenerator(GROUPED)(*inputs())
    assert (made[:, :3] <= made[:, 3:]).all()
    assert made.mean() < -0.3


@pytest.mark.parametrize(("changes", "family"), [({"groups": 3}, "biggan"), ({"groups": 4}, "biggan"), ({}, "resnet")])
def test_groups_that_do_not_fit_are_refused(changes, family):
    with pytest.raises(ConfigInvalid, match="cannot work on groups of"):
        FAMILIES[family].generator(replace(GROUPED, **changes))
