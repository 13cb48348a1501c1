"""What the detail network is taught: crops that agree with each other, signs, and items that lack this or that."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from assetgen import latents
from assetgen.datasets.mapsets import MapSet, as_photo
from assetgen.errors import ConfigInvalid
from assetgen.training import detail_look
from assetgen.training.checkpoint import Progress
from assetgen.training.detail import DetailTask, _chosen, _inside, beyond, regression
from assetgen.training.sums import Sums
from tests.helpers.tiny_runs import CLASSES, DETAIL, picture

FACTS = {"classes": list(CLASSES)}


def plane_set(large=True, label=0, *, edge_px=24, maps=True):
    """Height and colour that tell the place, slopes of a known plane with a bend."""
    scale = 4 if large else 1
    edge = scale * edge_px
    rows, columns = np.mgrid[:edge, :edge].astype(np.float32)
    height = (rows + 2 * columns + 0.01 * rows * columns)[:, :, None]
    color = picture(0, edge_px)
    targets = {"height": height / height.max(), "roughness": height / height.max()} if maps else {}
    if maps and large:
        targets["slopes"] = np.stack([1 + 0.01 * columns, 2 + 0.01 * rows], axis=2)
    return MapSet("x", label, color, np.repeat(np.repeat(color, 4, 0), 4, 1) if large else None, targets)


def task(sets, validation=(), drawn=(), **changes):
    return DetailTask(replace(DETAIL, **changes), CLASSES, sets, validation, FACTS, drawn=drawn)


def errors_of(detail):
    return detail_look.errors(detail.predict, detail.validation, detail.detailed, photo=detail.recipe.photo)


def batch_of(detail, step, sets):
    return detail._batch(latents.generator(1, step), sets)


def test_slopes_change_sign_with_the_axis_that_is_flipped():
    """In every crop, whatever its flips, the slopes are the differences of the height beside them."""
    detail = task([plane_set()])
    seen = set()
    for step in range(8):
        batch = batch_of(detail, step, detail.detailed)
        height, slopes = batch.targets["height"].numpy(), batch.targets["slopes"].numpy()
        scale = float(plane_set().targets["height"].max()) / float(95 + 190 + 0.01 * 95 * 95)
        rows = (height[:, 0, 2:, 1:-1] - height[:, 0, :-2, 1:-1]) / 2 / scale
        columns = (height[:, 0, 1:-1, 2:] - height[:, 0, 1:-1, :-2]) / 2 / scale
        assert np.abs(rows - slopes[:, 0, 1:-1, 1:-1]).max() < 0.01
        assert np.abs(columns - slopes[:, 1, 1:-1, 1:-1]).max() < 0.01
        seen |= {(bool(s[0, 5, 5] > 0), bool(s[1, 5, 5] > 0)) for s in slopes}
    assert len(seen) == 4, "all four flips come up"


def test_crops_of_colour_and_maps_are_of_the_same_place():
    detail = task([plane_set()])
    batch = batch_of(detail, 0, detail.detailed)
    assert batch.small.shape == (4, 3, 16, 16)
    assert batch.large.shape == (4, 3, 64, 64)
    assert batch.targets["height"].shape == (4, 1, 64, 64)
    assert (torch.nn.functional.avg_pool2d(batch.large, 4) - batch.small).abs().max() < 1e-6


def test_batches_are_functions_of_seed_and_step():
    detail = task([plane_set()])
    first, again, other = (batch_of(detail, step, detail.detailed).small for step in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_unknown_maps_are_masked():
    detail = task([plane_set(), plane_set(maps=False)])
    batch = batch_of(detail, 0, detail.detailed)
    known = batch.masks["roughness"]
    assert 0 < known.sum() < 4
    assert (batch.targets["roughness"][known == 0] == 0).all()
    with torch.no_grad():
        maps = detail._predict(detail.network, batch.small, batch.class_weights, 0, batch.large)
        before = regression(maps, batch, 0.2, Sums())
        batch.targets["roughness"][known == 0] = 77.0
        assert torch.equal(regression(maps, batch, 0.2, Sums()), before), "what is masked has no say"


def test_classes_that_are_not_told_are_an_even_blend():
    detail = task([plane_set(label=-1)])
    assert (batch_of(detail, 0, detail.detailed).class_weights == 0.5).all()


def test_every_kind_of_item_can_be_trained_on(tmp_path):
    """Only large ones, only small ones, with and without maps, with and without validation."""
    kinds = [plane_set(), plane_set(maps=False), plane_set(large=False)]
    for number, (sets, validation) in enumerate([*(([kind], []) for kind in kinds), (kinds, kinds)]):
        detail = task(sets, validation)
        sums = Sums()
        progress = Progress()
        for _ in range(2):
            progress = detail.step(progress, 0.5, sums)
        assert progress.step == 2
        assert all(math.isfinite(value) for value in sums.means().values())
        detail.snapshot(tmp_path / f"{number}.png")
        with Image.open(tmp_path / f"{number}.png") as sheet:
            sheet.load()
        assert all(math.isfinite(value) for value in detail.facts["validation"].values())
        assert all(value > 0 for value in detail.facts["relief_px"].values())


def test_validation_without_roughness_to_compare_with_names_no_figure():
    """A missing figure is missing, not NaN, which no manifest can hold."""
    detail = task([plane_set(large=False)], [plane_set()])
    found = errors_of(detail)
    assert "roughness_error" in found
    assert "roughness_error_of_mean" not in found


def test_relief_brings_predicted_heights_to_real_slopes():
    detail = task([plane_set()])
    (entry,) = detail.detailed
    height = detail.predict(entry).height[0, 0].numpy()
    steps = np.stack([np.roll(height, -1, axis) - np.roll(height, 1, axis) for axis in (0, 1)]) / 2
    relief = detail_look.relief_px(detail.predict, detail.classes, detail.detailed)["brick"]
    assert (relief * steps).std() == pytest.approx(float(np.sqrt((entry.targets["slopes"] ** 2).mean())), rel=0.05)


def test_the_discriminator_rests_until_its_share_of_the_run():
    detail = task([plane_set()], adversarial_from=0.5)
    before = [parameter.clone() for parameter in detail.discriminator.parameters()]
    detail.step(Progress(), 0.49, Sums())
    assert all(torch.equal(a, b) for a, b in zip(before, detail.discriminator.parameters(), strict=True))
    detail.step(Progress(), 0.5, Sums())
    assert not all(torch.equal(a, b) for a, b in zip(before, detail.discriminator.parameters(), strict=True))


def test_a_perfect_prediction_of_known_maps_costs_nothing():
    detail = task([plane_set(large=False)])
    batch = batch_of(detail, 0, detail.coarse)
    rough = torch.nn.functional.interpolate(batch.targets["roughness"], scale_factor=4)
    sums = Sums()
    with torch.no_grad():
        maps = detail._predict(detail.network, batch.small, batch.class_weights, 0, batch.large)
        regression(replace(maps, roughness=rough, base_color=torch.nn.functional.interpolate(
            batch.small, scale_factor=4)), batch, 0.2, sums)  # fmt: skip
    assert sums.means()["roughness"] < 1e-5
    assert sums.means()["color_low"] < 1e-5


def test_a_photo_is_seen_in_full_and_stays_as_it_is():
    photo = as_photo(plane_set(large=False, edge_px=64))
    assert photo.small.shape == (16, 16, 3)
    detail = task([photo], [photo], photo=True, adversarial=0.0, crop_px=16)
    batch = batch_of(detail, 0, detail.detailed)
    maps = detail._predict(detail.network, batch.small, batch.class_weights, 0, batch.large)
    assert torch.equal(maps.base_color, batch.large)
    assert torch.equal(
        maps.height, detail._predict(detail.network, batch.small, batch.class_weights, 9, batch.large).height
    )
    bright = photo_with(photo, 255)
    assert not torch.equal(detail.predict(bright).height, detail.predict(photo).height)
    found = errors_of(detail)
    assert found["height_correlation_of_brightness"] == pytest.approx(found["height_correlation"], abs=0.2)
    detail.step(Progress(), 0.5, Sums())
    with pytest.raises(ConfigInvalid, match="0 with photo, which makes no base colour"):
        task([photo], photo=True)


def photo_with(photo, value):
    """The item with one bright pixel that a quarter of its size does not show."""
    large = photo.large.copy()
    large[10, 10] = value
    return replace(photo, large=large)


def test_beyond_the_input_there_is_nothing_in_what_only_enlarges_it():
    """What the discriminator sees does not hang on brightness, and stands where texels were added."""
    flat = torch.full((1, 3, 16, 16), 0.7)
    assert beyond(flat).abs().max() < 1e-5
    grain = torch.zeros(1, 3, 16, 16)
    grain[:, :, ::2, ::2], grain[:, :, 1::2, ::2] = 0.1, -0.1
    assert torch.allclose(beyond(flat + grain), 4 * grain, atol=1e-5)


def test_classes_with_many_items_come_more_often_but_not_as_many_times():
    sets = [replace(plane_set(label=0), id=str(n)) for n in range(16)] + [plane_set(label=1)]
    labels = np.array([entry.label for entry in _chosen(latents.generator(0, 0), sets, 5000)])
    assert (labels == 0).mean() == pytest.approx(4 / 5, abs=0.02)


def test_the_border_that_wraps_for_the_network_only_is_not_judged():
    detail = task([plane_set()], margin_px=3)
    batch = batch_of(detail, 0, detail.detailed)
    with torch.no_grad():
        maps = detail._predict(detail.network, batch.small, batch.class_weights, 0, batch.large)
    inner, known = _inside(maps, batch, 3)
    assert known.small.shape[2:] == (10, 10)
    assert known.large.shape[2:] == known.targets["slopes"].shape[2:] == inner.height.shape[2:] == (40, 40)
    assert torch.equal(known.large, batch.large[:, :, 12:-12, 12:-12])
    assert torch.equal(inner.base_color, maps.base_color[:, :, 12:-12, 12:-12])


def test_drawn_pictures_are_of_the_classes_of_the_scans_beside_them():
    drawn = [MapSet("d", 1, picture(3, 32), None, {})]
    detail = task([plane_set()], drawn=drawn)
    wanted = np.array([1, 0, -1, 1])
    batch = detail._batch(latents.generator(1, 0), detail.drawn, wanted)
    assert batch.labels.tolist() == [1, 1, 1, 1], "of another class where there is none"
    assert batch.large is None
    assert not batch.targets


def test_a_class_of_one_scan_is_judged_as_of_no_class():
    """Its discriminator would know that scan by heart; and some crops are of no class, as they were."""
    sets = [plane_set(label=0), plane_set(label=1), plane_set(label=1), plane_set(label=-1)]
    drawn = [MapSet("d", label, picture(3, 32), None, {}) for label in (0, 1)]
    detail = task(sets, drawn=drawn)
    rng = latents.generator(1, 0)
    batch = replace(detail._batch(rng, sets), labels=np.array([0, 1, -1, 1]))
    maps = detail._predict(detail.network, batch.small, batch.class_weights, 0, batch.large)
    judged, _ = detail._judged(rng, batch, maps.base_color, 0)
    none = len(CLASSES)
    assert judged.labels.tolist()[:8] == [none, 1, none, 1] * 2, "scans, and what was added to them"
    assert set(judged.labels.tolist()[8:]) <= {none, 1}, "drawn ones"
    assert len(judged.labels) == len(judged.real) + len(judged.fake)


def test_drawn_pictures_move_the_network_and_stand_in_the_sheet(tmp_path):
    drawn = [MapSet("d", label, picture(3, 32), None, {}) for label in (0, 0, 1, 1)]
    with_them, without = task([plane_set()], drawn=drawn), task([plane_set()])
    for detail in (with_them, without):
        detail.step(Progress(), 0.5, Sums())
    pairs = zip(with_them.network.parameters(), without.network.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)
    with_them.snapshot(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height == 3 * 192, "a scan, and a drawn picture of each class"
