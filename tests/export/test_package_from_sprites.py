"""A sprite package from a generator: verified, equal to the network, served, and honest about what it is."""

import copy
import io
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from assetgen import golden
from assetgen.errors import ConfigInvalid, ParityFailed
from assetgen.local import open_local
from assetgen.models.families import FAMILIES, PictureConfig, standing_statistics
from assetgen.package import verify_package
from assetgen.runtime import open_session
from assetgen.training import checkpoint
from assetgen.training.checkpoint import Progress
from assetgen.training.picture import picture_config
from assetgen.types import Artifact, Encoding, OutputSpec, Request
from export import cli, package_from_sprites
from export.package_from_sprites import SpriteModel, package_of_model
from export.sliders import Slider, Sliders
from tests.helpers.reports import write_report
from tests.helpers.tiny_runs import PICTURE

CLASSES = ("potion", "sword", "gem")
LATENT, EDGE_PX = 12, 16
LICENSE = Path(__file__).resolve().parents[2] / "LICENSE"
FACTS = {"data_sha256": "00" * 32, "items": 9, "licenses": {"CC0-1.0": 9}, "authors": {"Someone": 9}}
TOLD = {"id": "items", "version": "1.0.0", "display_name": "Items", "license": "Apache-2.0", "license_file": LICENSE}


def generator():
    """An untrained BigGAN of four channels, with statistics as training leaves them."""
    torch.manual_seed(3)
    config = PictureConfig(
        classes=len(CLASSES),
        channels=4,
        edge_px=EDGE_PX,
        latent=LATENT,
        width=4,
        wrap=False,
        conditioning="projection",
    )
    network = FAMILIES["biggan"].generator(config)
    eye = torch.eye(len(CLASSES))
    standing_statistics(network, [(torch.randn(8, LATENT), eye[torch.randint(3, (8,))]) for _ in range(4)])
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run folder of a recipe with alpha, as training would leave it."""
    folder = tmp_path_factory.mktemp("run")
    recipe = replace(
        PICTURE, family="biggan", loss="hinge", alpha=True, wrap=False, flips="mirror", classes=CLASSES, latent=LATENT
    )
    save_run(folder, recipe)
    return folder


def coded_run(folder):
    """A run with an encoder, which has heaps of codes; returns its network."""
    torch.manual_seed(5)
    recipe = replace(
        PICTURE, family="biggan", loss="hinge", alpha=True, wrap=False, flips="mirror", classes=CLASSES, latent=LATENT,
        rebuild=1.0,
    )  # fmt: skip
    network = FAMILIES["biggan"].generator(picture_config(recipe, len(CLASSES)))
    heaps = 2.0 * torch.randint(-1, 2, (400, 1)) + 0.1 * torch.randn(400, LATENT)
    network.prior.learn(heaps, torch.full((400, LATENT), -2.0), torch.randint(3, (400,)))
    network.prior.fit()
    eye = torch.eye(len(CLASSES))
    standing_statistics(network, [(torch.randn(8, LATENT), eye[torch.randint(3, (8,))]) for _ in range(4)])
    facts = FACTS | {"classes": list(CLASSES)}
    checkpoint.save(folder / "checkpoint", asdict(recipe), Progress(2, 8000), facts, {"average": network.eval()}, {})
    return network


def test_codes_of_an_encoder_are_in_the_graph(tmp_path):
    """What draws them is part of the generator, so the package is that of any other."""
    network, eye = coded_run(tmp_path), torch.eye(len(CLASSES))
    assert cli.main([str(tmp_path), "-o", str(tmp_path / "out" / "coded"), "--slider-samples", "0"]) == 0
    package = verify_package(tmp_path / "out" / "coded")
    assert package.manifest.provenance["parity"]["graph_against_network"] < 1e-4
    inputs = {"z": np.zeros((1, LATENT), np.float32), "class_weights": np.eye(3, dtype=np.float32)[:1]}
    made = open_session(package, "cpu").run(inputs)["sprite"]
    with torch.no_grad():
        middle = int((network.prior.bounds[0] < 0).sum())
        mean = network.decode(network.prior.means[:1, middle], eye[:1]) * 0.5 + 0.5
    np.testing.assert_allclose(made, mean.clamp(0, 1).numpy(), atol=1e-4)


@pytest.mark.parametrize("samples", ["0", "32"])
def test_classes_may_be_left_out(tmp_path, samples):
    network = coded_run(tmp_path)
    options = ["--classes", "gem,potion", "--slider-samples", samples]
    assert cli.main([str(tmp_path), "-o", str(tmp_path / "out" / "some"), *options]) == 0
    package = verify_package(tmp_path / "out" / "some")
    manifest = package.manifest
    assert [known.name for known in manifest.classes] == ["gem", "potion"]
    assert next(spec.values for spec in manifest.parameters if spec.name == "class") == ("gem", "potion")
    assert manifest.provenance["sprite"]["learned_classes"] == list(CLASSES)
    assert len(manifest.provenance["sliders"]) == (6 if samples != "0" else 0)
    z, half = torch.randn(2, LATENT), np.array([[1, 0], [0.25, 0.75]], np.float32)
    inputs = {"z": z.numpy(), "class_weights": half}
    inputs |= {spec.name: np.zeros((2, 1), np.float32) for spec in manifest.inputs if spec.role == "slider"}
    with torch.no_grad():
        wanted = network(z, torch.tensor([[0, 0, 1], [0.75, 0, 0.25]])) * 0.5 + 0.5
    made = open_session(package, "cpu").run(inputs)["sprite"]
    np.testing.assert_allclose(made, wanted.clamp(0, 1).numpy(), atol=1e-4)


def save_run(folder, recipe):
    facts = FACTS | {"classes": list(CLASSES)}
    checkpoint.save(folder / "checkpoint", asdict(recipe), Progress(2, 8000), facts, {"average": generator()}, {})


@pytest.fixture(scope="module")
def package(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    half, full = (write_report(folder, run.name, bound) for bound in (1.0, None))
    (folder / "notes.md").write_text("Untrained: it makes coloured clouds.")
    options = [
        "--name",
        "Items",
        "--slider-samples",
        "0",
        "--palette",
        "8",
        "--report",
        str(full),
        "--report",
        str(half),
    ]
    options += ["--notes", str(folder / "notes.md")]
    assert cli.main([str(run), "-o", str(folder / "packages" / "items"), *options]) == 0
    return folder / "packages" / "items"


def sprites_of(package, **changes):
    raw = OutputSpec(encoding=Encoding.RAW)
    with open_local([package], "cpu", 1) as maker:
        given = Request(**{"model_id": "items", "seed": 3, "count": 3, "output": raw} | changes)
        made = [event for event in maker.generate(given) if isinstance(event, Artifact)]
    return [np.frombuffer(file.data, np.uint8).reshape(file.height_px, file.width_px, 4) for file in made]


def test_the_package_is_valid_and_says_what_it_is_made_of(package):
    manifest = verify_package(package).manifest
    assert (manifest.kind, manifest.size.min_px, manifest.size.max_px) == ("sprite", EDGE_PX, EDGE_PX)
    assert [known.name for known in manifest.classes] == list(CLASSES)
    assert manifest.provenance["parity"]["graph_against_network"] <= 1e-4
    assert manifest.provenance["sprite"]["data"]["authors"] == {"Someone": 9}
    assert manifest.provenance["sprite"]["kimg"] == 8.0
    assert manifest.provenance["figures"]["per_class"] == 64
    assert [point["truncation"] for point in manifest.provenance["figures"]["curve"]] == [0.5, None]
    defaults = {spec.name: spec.default for spec in manifest.parameters}
    assert (defaults["palette"], defaults["alpha"], defaults["class"]) == (8, "hard", "potion")


def test_the_graph_is_the_network_at_batches_that_were_not_traced(package):
    verified = verify_package(package)
    session = open_session(verified, "cpu", 1)
    network = generator()
    for n in (1, 4, 7):
        z, weights = torch.randn(n, LATENT), torch.softmax(torch.randn(n, 3), dim=1)
        with torch.no_grad():
            wanted = (network(z, weights) * 0.5 + 0.5).clamp(0, 1).numpy()
        made = session.run({"z": z.numpy(), "class_weights": weights.numpy()})["sprite"]
        assert made.shape == (n, 4, EDGE_PX, EDGE_PX)
        assert np.abs(made - wanted).max() <= 1e-4


def test_a_sprite_does_not_depend_on_those_beside_it_in_the_batch(package):
    session = open_session(verify_package(package), "cpu", 1)
    z = np.random.default_rng(0).standard_normal((4, LATENT), dtype=np.float32)
    weights = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    together = session.run({"z": z, "class_weights": weights})["sprite"]
    alone = session.run({"z": z[2:3], "class_weights": weights[2:3]})["sprite"]
    assert np.abs(together[2:3] - alone).max() <= 1e-5


def test_it_is_served_and_golden_requests_come_out_again(package):
    first, second, third = sprites_of(package)
    assert (first != second).any()
    assert (second != third).any()
    assert all((a == b).all() for a, b in zip(sprites_of(package), (first, second, third), strict=True))
    (gem,) = sprites_of(package, count=1, parameters={"class": "gem"})
    assert (gem != first).any()
    assert set(np.unique(gem[:, :, 3])) <= {0, 255}
    verified = verify_package(package)
    results = golden.replay(open_session(verified, "cpu", 1), verified.manifest, golden.load(verified))
    assert len(results) == 3
    assert not any(result.failed for result in results)


def test_the_preview_shows_every_class_on_a_chequered_ground(package):
    with Image.open(io.BytesIO((package / "preview.png").read_bytes())) as picture:
        assert picture.mode == "RGB"
        assert picture.size == (128, 128)
        empty = np.asarray(picture)[64:, 64:]  # three classes leave the fourth place empty
        assert not empty.any()
        assert len(np.unique(np.asarray(picture)[:64, :64].reshape(-1, 3), axis=0)) > 3


def test_the_card_holds_figures_and_the_curve_of_truncation(package):
    card = (package / "MODEL_CARD.md").read_text()
    assert "Untrained: it makes coloured clouds." in card
    assert "| accuracy | 0.6 | 0.9 |" in card
    assert "| edges: rim | 3 | 2 |" in card
    assert "| truncation | accuracy | coverage | ms ssim | pair distance |" in card
    assert "| 0.5 | 0.8 | 0.2 | 0.2 | 0.2 |" in card
    assert "| none | 0.6 | 0.2 | 0.2 | 0.2 |" in card
    assert "Someone (9)" in card


class Discs(nn.Module):
    """Another network of the interface: premultiplied discs in the colour of the class."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.colors = nn.Parameter(torch.rand(3, 3), requires_grad=False)
        y, x = torch.meshgrid(torch.linspace(-1, 1, EDGE_PX), torch.linspace(-1, 1, EDGE_PX), indexing="ij")
        self.register_buffer("far", torch.hypot(x, y)[None, None])

    def forward(self, z, class_weights):
        alpha = torch.sigmoid(20 * (0.6 + 0.1 * torch.tanh(z[:, :1, None, None] / 2) - self.far))
        color = (class_weights @ self.colors)[:, :, None, None]
        return torch.cat([color * alpha, alpha], dim=1) * 2 - 1


SIZE = Slider("size", r2=0.9, rising=1.0, down=1.0, up=1.0, effect=0.1)
VAGUE = Slider("tint", r2=0.01, rising=0.5, down=0.1, up=0.1, effect=0.1)
SLIDERS = Sliders((VAGUE, SIZE), torch.full((2, 3, 1), 4.0))
DISCS = SpriteModel(Discs().eval(), 1, CLASSES, EDGE_PX, 0, {"data": FACTS, "recipe": {}, "kimg": 8.0}, {}, SLIDERS)


def test_any_network_of_the_interface_will_do_and_nothing_is_claimed_that_was_not_measured(tmp_path):
    package_of_model(DISCS, tmp_path / "items", **TOLD)
    trimmed = {"trim": "on", "trim_margin": 0}
    (sprite,) = sprites_of(tmp_path / "items", count=1, parameters=trimmed)
    assert sprite.shape[0] == sprite.shape[1] <= EDGE_PX
    (small,), (large,) = (
        sprites_of(tmp_path / "items", count=1, parameters=trimmed | {"size": size}) for size in (-1.0, 1.0)
    )
    assert small.shape[0] < sprite.shape[0] < large.shape[0]
    wanted = (DISCS.generator.colors[0] * 255).numpy()
    assert np.abs(sprite[sprite[:, :, 3] > 64][:, :3] - wanted).max() <= 2  # to the edge: nothing dark around it
    manifest = verify_package(tmp_path / "items").manifest
    assert "figures" not in manifest.provenance
    assert {spec.name: spec.default for spec in manifest.parameters}["alpha"] == "soft"
    assert [spec.name for spec in manifest.inputs if spec.role == "slider"] == ["size"]
    assert [known["offered"] for known in manifest.provenance["sliders"]] == [False, True]
    card = (tmp_path / "items" / "MODEL_CARD.md").read_text()
    assert "Figures" not in card
    assert "truncation" not in card
    assert "| `size` | 0.90 | 100% |" in card
    assert "On sprites kept out" in card


def test_a_graph_that_differs_is_never_written(tmp_path, monkeypatch):
    write = package_from_sprites.onnx_of_pictures

    def altered(graph, *arguments, **options):
        other = copy.deepcopy(graph)
        other.generator.colors += 0.01
        write(other, *arguments, **options)

    monkeypatch.setattr(package_from_sprites, "onnx_of_pictures", altered)
    with pytest.raises(ParityFailed, match="differs from the network"):
        package_of_model(DISCS, tmp_path / "items", **TOLD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--detail", "x"], "--detail: not for a run of pictures with alpha"),
        (["--palette", "1000"], "--palette 1000: use 2 to 256"),
        (["--figures", "x.json"], "--figures: not for a run of pictures with alpha"),
        (["--report", "absent.json"], r"absent\.json cannot be read"),
        (["--classes", "gem,shield"], "did not learn shield; it learned potion, sword, gem"),
        (["--classes", "gem,gem"], "one is named twice"),
    ],
)
def test_options_that_make_no_sense_are_refused(run, tmp_path, options, said):
    with pytest.raises(ConfigInvalid, match=said):
        cli.main([str(run), "-o", str(tmp_path / "package"), *options])
    assert not (tmp_path / "package").exists()


def test_sprites_need_alpha_and_classes(tmp_path):
    plain = replace(PICTURE, family="biggan", loss="hinge", classes=CLASSES, latent=LATENT, wrap=False)
    save_run(tmp_path / "plain", plain)
    with pytest.raises(ConfigInvalid, match="no alpha"):
        package_from_sprites.package_from_sprites(tmp_path / "plain", tmp_path / "package", **TOLD)
    with pytest.raises(ConfigInvalid, match="do not tile"):
        cli.main([str(tmp_path / "plain"), "-o", str(tmp_path / "package")])
    save_run(tmp_path / "untold", replace(plain, family="dcgan", alpha=True, conditioning="none", loss="ns_logistic"))
    with pytest.raises(ConfigInvalid, match="told no classes"):
        cli.main([str(tmp_path / "untold"), "-o", str(tmp_path / "package")])
