"""The recipes of training runs: frozen dataclasses, read from TOML, overridden from the command line."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from assetgen import strictjson
from assetgen.errors import ConfigInvalid
from assetgen.manifest import LayoutSpec, check_layout

if TYPE_CHECKING:
    from assetgen.training.style_recipe import StyleRecipe  # they import this file
    from assetgen.training.volume_recipe import VolumeRecipe

PRECISIONS = ("auto", "bf16", "fp32")  # precision.py
STABILITY = ("off", "warn", "act")  # watchdog.py
FLIPS = ("all", "mirror", "none")  # batches.py
FAMILY_NAMES = ("vanilla", "dcgan", "resnet", "progressive", "biggan")  # models.families.FAMILIES
LOSS_NAMES = ("ns_logistic", "saturating", "hinge", "least_squares", "wasserstein", "relativistic")  # losses.LOSSES


@dataclass(frozen=True)
class TextureRecipe:
    """Everything that decides the result of a texture run, beside the data.

    Attributes:
        classes: classes to learn; empty takes every class of the data.
        min_contrast: leave out base colours flatter than this (standard deviation of grey, 0 to 127).
        scan_px: texel density: pixels across one scan.
        trim_px: cut this border off every picture: thumbnails are noisy there.
        crop_px: edge of the crops that the discriminator sees.
        directed_classes: classes with an up and a down; the others are turned by 90 degrees as well.
        grid_noise_channels: channels of noise that the generator starts from.
        layouts: patterns of cells by class, as tables of ``manifest.LayoutSpec``; a class that is not named gets all.
        batch: pictures a step.
        total_kimg: length of the run in thousands of pictures; schedules are fractions of it.
        learning_rate: of both networks; Adam with betas (0, 0.99).
        loss: one of ``LOSS_NAMES``.
        r1_gamma, r2_gamma: gradient penalties on reals and on fakes.
        gradient_penalty: weight of the penalty between reals and fakes (WGAN-GP); its usual value is 10.
        r1_interval: steps from one penalty to the next, which counts as many times.
        lecam: weight of the pull of logits towards each other, for few pictures (.01 to .3); 0 is none.
        distil: weight of the distance to a teacher's pictures, where a run has one.
        ema_kimg: half-life of the averaged generator, at most ``ema_rampup`` of the pictures so far.
        stability: ``off``, ``warn`` of what goes wrong, or ``act``: change penalty, rate or augmentation, or go back.
        augment_target: how often the discriminator may be right about reals, as mean sign, before augmentation grows.
        augment_kimg: thousands of pictures in which the augmentation probability can move by 1.
        augment_max: largest augmentation probability.
        augment_fixed: the probability itself, if above 0; it follows nothing then. For short runs, and for the loss
            ``relativistic``, under which the sign of a single logit means little.
        precision: ``bf16`` autocast or ``fp32``; ``auto`` is bf16 where the device multiplies it, else fp32.
    """

    seed: int = 1
    classes: tuple[str, ...] = ()
    min_contrast: float = 4.0
    scan_px: int = 128
    trim_px: int = 2
    crop_px: int = 64
    directed_classes: tuple[str, ...] = ("brick", "planks_woodfloor", "wood", "roof", "bark")
    latent: int = 128
    widths: tuple[int, ...] = (128, 64, 32)
    grid_layers: int = 4
    discriminator_widths: tuple[int, ...] = (64, 96, 128, 192)
    grid_noise_channels: int = 16
    layouts: Mapping[str, LayoutSpec] = field(default_factory=dict)
    batch: int = 32
    total_kimg: float = 300.0
    learning_rate: float = 0.0025
    loss: str = "ns_logistic"
    r1_gamma: float = 0.2
    r2_gamma: float = 0.0
    gradient_penalty: float = 0.0
    r1_interval: int = 16
    lecam: float = 0.0
    distil: float = 10.0
    ema_kimg: float = 5.0
    ema_rampup: float = 0.05
    stability: str = "warn"
    augment_target: float = 0.6
    augment_kimg: float = 100.0
    augment_max: float = 0.8
    augment_fixed: float = 0.0
    precision: str = "auto"

    def __post_init__(self) -> None:
        _check(self, {"widths": (_widths(self.widths), "one number or more, each above 0")})
        stride = 2 ** (len(self.widths) - 1)
        deepest = max(stride, 2 ** len(self.discriminator_widths))
        _check(
            self,
            {
                **_adversarial_rules(self),
                "crop_px": (self.crop_px > 0 and self.crop_px % deepest == 0, f"a multiple of {deepest}"),
                "grid_layers": (self.grid_layers > 0, "above 0"),
                "grid_noise_channels": (self.grid_noise_channels >= 0, "0 or more"),
                "discriminator_widths": (_widths(self.discriminator_widths), "one number or more, each above 0"),
            },
        )

    @property
    def auxiliary(self) -> float:
        """The weight of an auxiliary classifier: this discriminator has none, but projection."""
        return 0.0

    @property
    def alpha(self) -> bool:
        """Materials cover everything."""
        return False

    @property
    def flips(self) -> str:
        """Materials have no up and down, or ``directed_classes`` says so."""
        return "all"


@dataclass(frozen=True)
class PictureRecipe:
    """Everything that decides the result of a run of one of the picture families, beside the data.

    Attributes not explained here are those of ``TextureRecipe``.

    Attributes:
        family: one of ``FAMILY_NAMES``.
        conditioning: ``none``, ``concat``, ``auxiliary`` or ``projection``; which a family has, it says when asked.
        wrap: pictures tile; off where they have a border, such as things on a ground.
        alpha: four channels: colours times alpha, and alpha; the file must hold pictures with alpha.
        flips: ``all`` also turns (but for ``directed_classes``), ``mirror`` swaps left and right, ``none``.
        groups: pixels a side that the networks take as one place (1, 2, 4): less work, coarser shapes; biggan only.
        crop_px: edge of the pictures that are made, a power of two.
        width: channels at the finest resolution.
        learning_rate, discriminator_rate: of the generator and of the discriminator.
        beta1, beta2: of Adam, for both.
        discriminator_steps: steps of the discriminator for one of the generator.
        auxiliary: weight of the classifier's loss, for conditioning ``auxiliary``.
        orthogonal: weight of the penalty on filters that resemble each other (BigGAN: 1e-4).
        grown_by: share of the run after which a progressive network is fully grown; other families ignore it.
        rebuild: weight of rebuilding reals from what an encoder makes of them, as ``VolumeRecipe`` explains; biggan
            only, 0 has no encoder.
        rebuild_kl: weight of keeping the encoder's codes close to a normal distribution.
        adversarial: weight of the discriminator's say.
        adversarial_from: share of the run after which the discriminator takes part; above 0 only with ``rebuild``.
    """

    seed: int = 1
    family: str = "dcgan"
    conditioning: str = "projection"
    wrap: bool = True
    alpha: bool = False
    flips: str = "all"
    groups: int = 1
    classes: tuple[str, ...] = ()
    min_contrast: float = 4.0
    scan_px: int = 128
    trim_px: int = 2
    crop_px: int = 64
    directed_classes: tuple[str, ...] = ("brick", "planks_woodfloor", "wood", "roof", "bark")
    latent: int = 128
    width: int = 32
    batch: int = 32
    total_kimg: float = 300.0
    learning_rate: float = 0.0002
    discriminator_rate: float = 0.0002
    beta1: float = 0.5
    beta2: float = 0.999
    discriminator_steps: int = 1
    loss: str = "ns_logistic"
    r1_gamma: float = 0.0
    r2_gamma: float = 0.0
    gradient_penalty: float = 0.0
    r1_interval: int = 16
    lecam: float = 0.0
    distil: float = 10.0
    auxiliary: float = 0.5
    orthogonal: float = 0.0
    grown_by: float = 0.6
    ema_kimg: float = 5.0
    ema_rampup: float = 0.05
    stability: str = "warn"
    augment_target: float = 0.6
    augment_kimg: float = 100.0
    augment_max: float = 0.8
    augment_fixed: float = 0.0
    rebuild: float = 0.0
    rebuild_kl: float = 0.005
    adversarial: float = 1.0
    adversarial_from: float = 0.0
    precision: str = "auto"

    def __post_init__(self) -> None:
        power_of_two = self.crop_px > 0 and self.crop_px & (self.crop_px - 1) == 0
        _check(
            self,
            {
                **_adversarial_rules(self),
                "family": (self.family in FAMILY_NAMES, f"one of {', '.join(FAMILY_NAMES)}"),
                "crop_px": (self.crop_px >= 16 and power_of_two, "a power of two, 16 or more"),
                "width": (self.width > 0, "above 0"),
                "discriminator_rate": (self.discriminator_rate > 0, "above 0"),
                "beta1": (0 <= self.beta1 < 1, "0 or more, below 1"),
                "beta2": (0 < self.beta2 < 1, "above 0, below 1"),
                "discriminator_steps": (1 <= self.discriminator_steps <= 16, "1 to 16"),
                "auxiliary": (self.auxiliary >= 0, "0 or more"),
                "orthogonal": (self.orthogonal >= 0, "0 or more"),
                "grown_by": (0 < self.grown_by <= 1, "above 0, at most 1"),
                "alpha": (not (self.alpha and self.wrap), "wrap = false with it: what has a border does not tile"),
                "flips": (self.flips in FLIPS, f"one of {', '.join(FLIPS)}"),
                "groups": (self.groups in (1, 2, 4), "1, 2 or 4"),
                "rebuild": (self.rebuild >= 0 and not (self.rebuild and self.family != "biggan"), "0; more for biggan"),
                "rebuild_kl": (self.rebuild_kl >= 0, "0 or more"),
                "adversarial": (self.adversarial > 0 or (self.adversarial == 0 < self.rebuild), "above 0"),
                "adversarial_from": (
                    0 <= self.adversarial_from < 1 and (self.rebuild > 0 or not self.adversarial_from),
                    "0 or more, below 1; 0 without rebuild, or nothing would be learned before",
                ),
            },
        )


@dataclass(frozen=True)
class DetailRecipe:
    """Everything that decides the result of a detail run, beside the data.

    Attributes:
        classes: classes the network is told apart by; the order must be the texture model's.
        metal_classes: classes in which metallic is learned; elsewhere it is 0.
        jointed_classes: classes of laid cells whose joints lie lower than the cells.
        scan_px: texel density of the input; items four times as large teach detail, smaller ones the maps only.
        crop_px: edge of input crops.
        margin_px: border of input crops that nobody judges: the network takes them to wrap, which they do not.
        score_px: edge of the crops that the discriminator sees, in output pixels.
        class_dropout: share of crops whose class the network is not told.
        photo: learn the maps of pictures that are there in full, to serve photos: nothing is added to base colour.
        batch: crops a step.
        total_kimg: length of the run in thousands of crops.
        fine: weight of the distance to the finest colours: the more, the less is made up, and the more is blurred.
        adversarial: weight of the discriminator's say on base colour; 0 trains by regression alone.
        adversarial_from: share of the run after which the discriminator takes part.
        augment_fixed: probability of each augmentation of what the discriminator sees.
        distil: weight of the distance to a teacher's maps, where a run has one.
    """

    seed: int = 1
    classes: tuple[str, ...] = ()
    metal_classes: tuple[str, ...] = ("metal", "rust")
    jointed_classes: tuple[str, ...] = ("brick", "paving", "planks_woodfloor", "roof", "tiles")
    scan_px: int = 128
    trim_px: int = 2
    crop_px: int = 24
    margin_px: int = 4
    score_px: int = 64
    class_dropout: float = 0.3
    photo: bool = False
    widths: tuple[int, ...] = (48, 24, 16)
    blocks: int = 4
    discriminator_widths: tuple[int, ...] = (32, 64, 96, 128)
    batch: int = 8
    total_kimg: float = 40.0
    learning_rate: float = 0.002
    fine: float = 0.2
    adversarial: float = 0.1
    adversarial_from: float = 0.2
    augment_fixed: float = 0.0
    distil: float = 10.0
    r1_gamma: float = 0.5
    r1_interval: int = 16
    ema_kimg: float = 2.0
    ema_rampup: float = 0.05
    precision: str = "auto"

    def __post_init__(self) -> None:
        deepest = 2 ** len(self.discriminator_widths)
        _check(
            self,
            {
                "widths": (len(self.widths) == 3 and _widths(self.widths), "three numbers above 0"),
                "discriminator_widths": (_widths(self.discriminator_widths), "one number or more, each above 0"),
                "margin_px": (0 <= 2 * self.margin_px < self.crop_px, "0 or more, less than half of crop_px"),
                "score_px": (
                    0 < self.score_px <= 4 * (self.crop_px - 2 * self.margin_px) and self.score_px % deepest == 0,
                    f"a multiple of {deepest}, at most 4 (crop_px - 2 margin_px)",
                ),
                "fine": (self.fine >= 0, "0 or more"),
                "seed": (0 <= self.seed < 2**32, "0 to 4294967295"),
                "scan_px": (self.scan_px > 0, "above 0"),
                "trim_px": (self.trim_px >= 0, "0 or more"),
                "blocks": (self.blocks >= 0, "0 or more"),
                "batch": (self.batch > 0 and self.batch % 4 == 0, "a positive multiple of 4"),
                "precision": (self.precision in PRECISIONS, "auto, bf16 or fp32"),
                "total_kimg": (self.total_kimg > 0, "above 0"),
                "learning_rate": (self.learning_rate > 0, "above 0"),
                "r1_interval": (self.r1_interval >= 1, "1 or more"),
                "distil": (self.distil >= 0, "0 or more"),
                "adversarial_from": (0 <= self.adversarial_from <= 1, "0 to 1"),
                "augment_fixed": (0 <= self.augment_fixed <= 1, "0 to 1"),
                "adversarial": (not (self.photo and self.adversarial), "0 with photo, which makes no base colour"),
            },
        )


def layouts_from_toml(path: Path) -> dict[str, LayoutSpec]:
    """The table ``[layouts]`` of a file that holds nothing else; raises ConfigInvalid."""
    values = values_from_toml(path)
    if values.keys() != {"layouts"}:
        raise ConfigInvalid(f"{path} holds {', '.join(values) or 'nothing'}; one table [layouts] is allowed")
    return _layouts(values["layouts"])


AnyRecipe: TypeAlias = "TextureRecipe | PictureRecipe | DetailRecipe | StyleRecipe | VolumeRecipe"
RecipeType = TypeVar("RecipeType", TextureRecipe, PictureRecipe, DetailRecipe, "StyleRecipe", "VolumeRecipe")


def recipe_from_toml(kind: type[RecipeType], path: Path, overrides: Mapping[str, Any] | None = None) -> RecipeType:
    """Read a recipe; ``overrides`` win.

    Raises:
        ConfigInvalid: unreadable file, unknown key (with the closest name), wrong type, or value out of range.
    """
    return recipe_from_values(kind, {**values_from_toml(path), **(overrides or {})})


def recipe_from_values(kind: type[RecipeType], values: Mapping[str, Any]) -> RecipeType:
    """Check names and types and make the recipe."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            raise ConfigInvalid(
                f"recipe key {name!r} is not known", hint=f"did you mean {close[0]!r}?" if close else "see --dry-run"
            )
        checked[name] = _layouts(value) if name == "layouts" else _typed(name, value, fields[name].default)
    return kind(**checked)


def values_from_toml(path: Path) -> dict[str, Any]:
    """What a recipe file says, unchecked; raises ConfigInvalid if it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigInvalid(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"{path} is not TOML: {error}") from error


def _layouts(value: Any) -> dict[str, LayoutSpec]:
    """Tables by class; JSON and back makes lists of tuples, so that a recipe may come from either."""
    try:
        made = strictjson.build(_Layouts, {"layouts": json.loads(json.dumps(value, default=asdict))}).layouts
        for name, layout in made.items():
            check_layout(layout, f"layouts[{name}]")
    except (TypeError, ValueError) as error:
        raise ConfigInvalid(str(error), hint="see the recipes in assetgen/training/recipes") from error
    return dict(made)


@dataclass(frozen=True)
class _Layouts:
    layouts: Mapping[str, LayoutSpec]


def _adversarial_rules(recipe: TextureRecipe | PictureRecipe) -> dict[str, tuple[bool, str]]:
    """What holds for every recipe that trains a generator against a discriminator."""
    return {
        "batch": (recipe.batch > 0 and recipe.batch % 4 == 0, "a positive multiple of 4"),
        "precision": (recipe.precision in PRECISIONS, "auto, bf16 or fp32"),
        "total_kimg": (recipe.total_kimg > 0, "above 0"),
        "learning_rate": (recipe.learning_rate > 0, "above 0"),
        "loss": (recipe.loss in LOSS_NAMES, f"one of {', '.join(LOSS_NAMES)}"),
        "r1_gamma": (recipe.r1_gamma >= 0, "0 or more"),
        "r2_gamma": (recipe.r2_gamma >= 0, "0 or more"),
        "gradient_penalty": (
            recipe.gradient_penalty > 0 or (recipe.gradient_penalty == 0 and recipe.loss != "wasserstein"),
            "0 or more; above 0 with loss wasserstein, whose discriminator nothing else bounds",
        ),
        "r1_interval": (recipe.r1_interval >= 1, "1 or more"),
        "lecam": (recipe.lecam >= 0, "0 or more"),
        "distil": (recipe.distil >= 0, "0 or more"),
        "ema_kimg": (recipe.ema_kimg > 0, "above 0"),
        "stability": (recipe.stability in STABILITY, f"one of {', '.join(STABILITY)}"),
        "augment_max": (0 <= recipe.augment_max <= 1, "0 to 1"),
        "augment_fixed": (0 <= recipe.augment_fixed <= 1, "0 to 1"),
        "augment_kimg": (recipe.augment_kimg > 0, "above 0"),
        "seed": (0 <= recipe.seed < 2**32, "0 to 4294967295"),
        "scan_px": (recipe.scan_px > 0, "above 0"),
        "trim_px": (recipe.trim_px >= 0, "0 or more"),
        "latent": (recipe.latent > 0, "above 0"),
    }


def _widths(widths: tuple[int, ...]) -> bool:
    return len(widths) > 0 and min(widths) > 0


def _check(recipe: object, rules: Mapping[str, tuple[bool, str]]) -> None:
    for name, (fits, allowed) in rules.items():
        if not fits:
            raise ConfigInvalid(f"{name}: {getattr(recipe, name)} is not allowed; use {allowed}")


def _typed(name: str, value: Any, default: Any) -> Any:
    if isinstance(default, tuple):
        kind = int if name.endswith("widths") else str
        if isinstance(value, list | tuple) and all(type(entry) is kind for entry in value):
            return tuple(value)
        raise ConfigInvalid(f"{name}: {value!r} is not a list of {kind.__name__}")
    if isinstance(default, float) and type(value) in (int, float):
        return float(value)
    if type(value) is type(default):
        return value
    raise ConfigInvalid(f"{name}: {value!r} is not a {type(default).__name__}")
