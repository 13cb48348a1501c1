"""The recipe of a run of meshes: a frozen dataclass and what goes together in it; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from assetgen.errors import ConfigInvalid
from assetgen.training.recipe import LOSS_NAMES, PRECISIONS, STABILITY, _check

VOLUME_LOSSES = tuple(name for name in LOSS_NAMES if name not in ("wasserstein", "relativistic"))


@dataclass(frozen=True)
class VolumeRecipe:
    """Everything that decides the result of a run of meshes, beside the data.

    Attributes not explained here are those of ``recipe.TextureRecipe``.

    Attributes:
        volume_edge: cells along each axis; the data must have as many.
        stride: a step makes and judges every ``stride``-th cell along each axis, from a random one on (1, 2, 4): work
            of a volume of ``volume_edge / stride`` cells teaches the whole one, since a place asks no neighbours.
        turned_classes: classes without a front, which are turned by quarters round the upright axis as well; all
            classes are mirrored left to right.
        latent, style, width, features, hidden, critic_width: see ``models.volume.VolumeConfig``.
        learning_rate, discriminator_rate: of generator and encoder, and of the critic; Adam with betas (0, 0.99).
        adversarial: weight of the critic's say; 0 trains by reconstruction alone.
        adversarial_from: share of the run after which the critic takes part: rebuilding alone is twice as fast.
        rebuild: weight of rebuilding real volumes from what an encoder makes of them (VAE-GAN, Larsen et al. 2016): few
            volumes and little time teach shapes that way which a critic alone would need a hundred times as long for;
            0 has no encoder.
        rebuild_kl: weight of keeping the encoder's z close to what is drawn without it.
        augment_shift: cells by which an augmented volume is moved at most.
    """

    seed: int = 1
    classes: tuple[str, ...] = ()
    volume_edge: int = 48
    stride: int = 1
    turned_classes: tuple[str, ...] = ("barrel_keg", "bottle_jar_potion", "plant_flower_bush", "rock", "tree")
    latent: int = 64
    style: int = 128
    width: int = 32
    features: int = 16
    hidden: int = 32
    critic_width: int = 24
    batch: int = 16
    total_kimg: float = 300.0
    learning_rate: float = 0.002
    discriminator_rate: float = 0.002
    loss: str = "ns_logistic"
    adversarial: float = 1.0
    adversarial_from: float = 0.0
    rebuild: float = 10.0
    rebuild_kl: float = 0.01
    r1_gamma: float = 1.0
    r1_interval: int = 16
    lecam: float = 0.0
    ema_kimg: float = 5.0
    ema_rampup: float = 0.05
    stability: str = "warn"
    augment_target: float = 0.6
    augment_kimg: float = 100.0
    augment_max: float = 0.8
    augment_shift: int = 2
    precision: str = "fp32"

    def __post_init__(self) -> None:
        _check(self, {**_size_rules(self), **_training_rules(self)})
        if not self.adversarial and not self.rebuild:
            raise ConfigInvalid("adversarial, rebuild: both are 0, so nothing would be learned; set one above 0")

    @property
    def r2_gamma(self) -> float:
        """No penalty on fakes."""
        return 0.0

    @property
    def gradient_penalty(self) -> float:
        """No penalty between reals and fakes."""
        return 0.0

    @property
    def auxiliary(self) -> float:
        """No auxiliary classifier, but projection."""
        return 0.0


def _size_rules(recipe: VolumeRecipe) -> dict[str, tuple[bool, str]]:
    edge = recipe.volume_edge
    while edge % 2 == 0 and edge > 6:  # models.volume.fits, which needs torch
        edge //= 2
    fits = 16 <= recipe.volume_edge <= 128 and 3 <= edge <= 6
    strides = recipe.stride in (1, 2, 4) and recipe.volume_edge % recipe.stride == 0
    sizes = ("latent", "style", "width", "features", "hidden", "critic_width")
    return {
        "stride": (strides and recipe.volume_edge // recipe.stride >= 16, "1, 2 or 4, that leaves 16 cells or more"),
        "volume_edge": (fits, "3 to 6 times a power of two, 16 to 128, such as 24, 32, 48 or 64"),
        **{name: (getattr(recipe, name) > 0, "above 0") for name in sizes},
    }


def _training_rules(recipe: VolumeRecipe) -> dict[str, tuple[bool, str]]:
    return {
        "seed": (0 <= recipe.seed < 2**32, "0 to 4294967295"),
        "batch": (recipe.batch > 0 and recipe.batch % 4 == 0, "a positive multiple of 4"),
        "total_kimg": (recipe.total_kimg > 0, "above 0"),
        "learning_rate": (recipe.learning_rate > 0, "above 0"),
        "discriminator_rate": (recipe.discriminator_rate > 0, "above 0"),
        "loss": (recipe.loss in VOLUME_LOSSES, f"one of {', '.join(VOLUME_LOSSES)}"),
        "adversarial": (recipe.adversarial >= 0, "0 or more"),
        "adversarial_from": (
            0 <= recipe.adversarial_from < 1 and (recipe.rebuild > 0 or not recipe.adversarial_from),
            "0 or more, below 1; 0 without rebuild, or nothing would be learned before",
        ),
        "rebuild": (recipe.rebuild >= 0, "0 or more"),
        "rebuild_kl": (recipe.rebuild_kl >= 0, "0 or more"),
        "r1_gamma": (recipe.r1_gamma >= 0, "0 or more"),
        "r1_interval": (recipe.r1_interval >= 1, "1 or more"),
        "lecam": (recipe.lecam >= 0, "0 or more"),
        "ema_kimg": (recipe.ema_kimg > 0, "above 0"),
        "ema_rampup": (recipe.ema_rampup > 0, "above 0"),
        "stability": (recipe.stability in STABILITY, f"one of {', '.join(STABILITY)}"),
        "augment_kimg": (recipe.augment_kimg > 0, "above 0"),
        "augment_max": (0 <= recipe.augment_max <= 1, "0 to 1"),
        "augment_shift": (0 <= recipe.augment_shift <= 4, "0 to 4"),
        "precision": (recipe.precision in PRECISIONS, "auto, bf16 or fp32"),
    }
