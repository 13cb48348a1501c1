"""The recipe of a run of style transfer: a frozen dataclass and what goes together in it; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from assetgen.errors import ConfigInvalid
from assetgen.training.recipe import PRECISIONS, STABILITY, _check

PAIR_METHODS = ("cyclegan", "cut", "fastcut", "patches")  # style.py
METHODS = (*PAIR_METHODS, "stargan")  # star.py
NORM_NAMES = ("instance", "pixel", "batch", "none")  # models.cyclegan.NORMS
SMALLEST_PATCHED_PX = 20  # of style_terms.patch_distance
ADAPTIVE_NORMS = ("instance", "batch", "none")  # models.stargan.NORMS
# Those whose discriminator needs nothing else to bound it, and whose generator looks at no reals.
STYLE_LOSSES = ("ns_logistic", "hinge", "least_squares")
STRIDE = 4  # models.cyclegan.STRIDE
SMALLEST_SCORED_PX = {2: 16, 3: 32}  # of models.cyclegan.PatchDiscriminator, by its halvings


@dataclass(frozen=True)
class StyleRecipe:
    """Everything that decides the result of a run of style transfer, beside the data.

    A domain is a class of the data. Attributes not explained here are those of ``recipe.TextureRecipe``.

    Attributes:
        method: ``cyclegan`` (both ways), ``cut``, ``fastcut`` or ``patches`` (one way), ``stargan`` (n domains in one
            network).
        source, target: the two domains of all methods but ``stargan``.
        classes: the domains of ``stargan``; empty takes every class of the data.
        tiled: domains whose pictures tile: smaller ones are repeated to fill a crop, at their own scale.
        scan_px: wider pictures are shrunk to this width.
        crop_px: edge of crops; smaller pictures of domains that are not ``tiled`` are enlarged by whole factors without
            smoothing.
        wrap: pictures that tile stay pictures that tile.
        border_px: with ``wrap``, what is cut off crops before anything is compared: they do not tile, and so the
            generator makes a fault there.
        width, blocks, norm: of the generators; see ``models.cyclegan.TransferConfig``.
        style: dimension of a domain's style, for ``stargan``.
        discriminator_width, discriminator_halvings, discriminator_norm: channels of the discriminator's first layer,
            and what it looks at; see ``models.cyclegan.PatchDiscriminator``. ``stargan`` has its own, of this width.
        learning_rate, discriminator_rate: of generators (and projection heads) and of discriminators.
        cycle: weight of the way there and back: ``cyclegan`` and ``stargan``, which may do without.
        identity: weight of leaving pictures of the target as they are; a share of ``cycle`` or of ``nce``.
        nce: weight of PatchNCE: ``cut`` and ``fastcut``.
        patches: weight of ``style_terms.patch_distance``; above 0 for ``patches``, which has nothing else to begin by.
        colors: weight of ``style_terms.color_distance``, for domains with colours of their own: moss, snow, rust.
        structure, structure_aim: weight of what the correlation of slopes falls short of the aim.
        color, color_room, brightness_room: weight of what ``style_terms.color_excess`` finds beyond these rooms for
            hues, in the light that results have, and for brightness, values in [-1, 1].
        hues: those of the target count. If not, the discriminator and ``patches`` see grey pictures (brightness,
            contrast, grain), so that results may keep the hues of what they were made of; ``color`` has to hold them.
        pool: earlier fakes that the discriminator of ``cyclegan`` is shown half of the time.
        auxiliary: weight of telling the domain, for ``stargan``.
    """

    seed: int = 1
    method: str = "fastcut"
    source: str = ""
    target: str = ""
    classes: tuple[str, ...] = ()
    tiled: tuple[str, ...] = ()
    min_contrast: float = 4.0
    scan_px: int = 128
    crop_px: int = 64
    wrap: bool = True
    border_px: int = 8
    width: int = 32
    blocks: int = 6
    norm: str = "instance"
    style: int = 64
    discriminator_width: int = 64
    discriminator_halvings: int = 3
    discriminator_norm: str = "instance"
    batch: int = 4
    total_kimg: float = 200.0
    learning_rate: float = 0.0002
    discriminator_rate: float = 0.0002
    beta1: float = 0.5
    beta2: float = 0.999
    loss: str = "least_squares"
    r1_gamma: float = 0.0
    r1_interval: int = 16
    cycle: float = 0.0
    identity: float = 0.0
    nce: float = 10.0
    patches: float = 0.0
    colors: float = 0.0
    structure: float = 0.0
    structure_aim: float = 0.7
    color: float = 0.0
    color_room: float = 0.1
    brightness_room: float = 0.5
    hues: bool = True
    pool: int = 0
    auxiliary: float = 0.0
    distil: float = 10.0
    ema_kimg: float = 1.0
    ema_rampup: float = 0.05
    stability: str = "warn"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigInvalid(f"method: {self.method} is not allowed; use one of {', '.join(METHODS)}")
        _check_domains(self)
        _check(self, {**_size_rules(self), **_method_rules(self), **_training_rules(self)})

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains by name, the source first; empty: all of the data."""
        return self.classes if self.method == "stargan" else (self.source, self.target)

    @property
    def inner_px(self) -> int:
        """Edge of what is left of a crop without its border."""
        return self.crop_px - 2 * self.border_px

    @property
    def compares_spread(self) -> bool:
        """How patches or colours of results are spread is compared with reals of the target."""
        return self.patches > 0 or self.colors > 0

    @property
    def r2_gamma(self) -> float:
        """No penalty on fakes."""
        return 0.0

    @property
    def gradient_penalty(self) -> float:
        """No penalty between reals and fakes."""
        return 0.0

    @property
    def lecam(self) -> float:
        """No pull of logits towards each other."""
        return 0.0

    @property
    def augment_max(self) -> float:
        """Out of reach: nothing is augmented, so that the watchdog does not take a sure discriminator for overfit."""
        return 1.0


def _check_domains(recipe: StyleRecipe) -> None:
    if recipe.method == "stargan":
        if recipe.source or recipe.target:
            raise ConfigInvalid("source, target: stargan has neither; name its domains in classes")
        if recipe.classes and len(set(recipe.classes)) != len(recipe.classes):
            raise ConfigInvalid(f"classes: {', '.join(recipe.classes)} names a domain twice")
        if len(recipe.classes) == 1:
            raise ConfigInvalid("classes: one domain leads nowhere; name two or more, or none for all of the data")
        return
    if recipe.classes:
        raise ConfigInvalid(f"classes: {recipe.method} has none; name source and target")
    if not recipe.source or not recipe.target:
        raise ConfigInvalid(
            f"source, target: {recipe.method} needs both",
            hint="name two classes of the data: --set source=NAME --set target=NAME",
        )
    if recipe.source == recipe.target:
        raise ConfigInvalid(f"source, target: both are {recipe.source!r}; name two domains")


def _size_rules(recipe: StyleRecipe) -> dict[str, tuple[bool, str]]:
    inner = recipe.inner_px
    crop_fits = recipe.crop_px > 0 and recipe.crop_px % STRIDE == 0
    if recipe.method == "stargan":
        scored = inner >= 16 and inner & (inner - 1) == 0
        allowed = "a power of two, 16 or more, once border_px is cut off both sides"
    else:
        smallest = SMALLEST_SCORED_PX.get(recipe.discriminator_halvings, 0)
        scored = inner >= smallest
        allowed = f"a multiple of {STRIDE}, {smallest} or more once border_px is cut off both sides"
    border = recipe.border_px % STRIDE == 0 and (recipe.border_px > 0) == recipe.wrap
    return {
        "border_px": (border, f"a multiple of {STRIDE}: above 0 with wrap, whose crops do not tile, else 0"),
        "crop_px": (crop_fits and scored, allowed),
        "scan_px": (recipe.scan_px >= recipe.crop_px, "crop_px or more, or shrunk pictures would be enlarged again"),
        "width": (recipe.width > 0, "above 0"),
        "blocks": (recipe.blocks > 0, "above 0"),
        "style": (recipe.style > 0, "above 0"),
        "discriminator_width": (recipe.discriminator_width > 0, "above 0"),
        "discriminator_halvings": (recipe.discriminator_halvings in SMALLEST_SCORED_PX, "2 or 3"),
        "discriminator_norm": (
            recipe.discriminator_norm == "instance" or (recipe.discriminator_norm == "none" and recipe.r1_gamma > 0),
            "instance, or none if r1_gamma is above 0, since nothing else bounds it then",
        ),
    }


def _method_rules(recipe: StyleRecipe) -> dict[str, tuple[bool, str]]:
    """What a method has no use for is 0, so that a recipe says what is done."""
    method = recipe.method
    rules = {"norm": (recipe.norm in NORM_NAMES, f"one of {', '.join(NORM_NAMES)}")}
    if method == "stargan":
        rules["norm"] = (recipe.norm in ADAPTIVE_NORMS, f"one of {', '.join(ADAPTIVE_NORMS)} with method stargan")
    users = {"cycle": ("cyclegan",), "nce": ("cut", "fastcut"), "auxiliary": ("stargan",)}
    for name, methods in users.items():
        value = getattr(recipe, name)
        needed = method in methods
        rules[name] = (value > 0 if needed else value == 0, f"{'above 0' if needed else '0'} with method {method}")
    if method == "stargan":  # a student has teachers to tell it what to keep
        rules["cycle"] = (recipe.cycle >= 0, "0 or more with method stargan")
    alone = method == "patches"
    rules["patches"] = (recipe.patches > 0 if alone else recipe.patches >= 0, "0 or more; above 0 with method patches")
    if recipe.patches and recipe.inner_px < SMALLEST_PATCHED_PX:
        smallest = f"{SMALLEST_PATCHED_PX} or more with patches, once border_px is cut off both sides"
        rules["crop_px"] = (False, smallest)
    may_be_above = {"identity": ("cyclegan", "cut"), "pool": ("cyclegan",)}
    for name, methods in may_be_above.items():
        value, able = getattr(recipe, name), method in methods
        rules[name] = (value >= 0 if able else value == 0, f"{'0 or more' if able else '0'} with method {method}")
    return rules


def _training_rules(recipe: StyleRecipe) -> dict[str, tuple[bool, str]]:
    return {
        "seed": (0 <= recipe.seed < 2**32, "0 to 4294967295"),
        "min_contrast": (recipe.min_contrast >= 0, "0 or more"),
        "batch": (recipe.batch > 0, "above 0"),
        "total_kimg": (recipe.total_kimg > 0, "above 0"),
        "learning_rate": (recipe.learning_rate > 0, "above 0"),
        "discriminator_rate": (recipe.discriminator_rate > 0, "above 0"),
        "beta1": (0 <= recipe.beta1 < 1, "0 or more, below 1"),
        "beta2": (0 < recipe.beta2 < 1, "above 0, below 1"),
        "loss": (recipe.loss in STYLE_LOSSES, f"one of {', '.join(STYLE_LOSSES)}"),
        "r1_gamma": (recipe.r1_gamma >= 0, "0 or more"),
        "r1_interval": (recipe.r1_interval >= 1, "1 or more"),
        "colors": (recipe.colors >= 0, "0 or more"),
        "structure": (recipe.structure >= 0, "0 or more"),
        "structure_aim": (-1 <= recipe.structure_aim <= 1, "-1 to 1"),
        "color": (recipe.color >= 0, "0 or more"),
        "color_room": (recipe.color_room >= 0, "0 or more"),
        "brightness_room": (recipe.brightness_room >= 0, "0 or more"),
        "distil": (recipe.distil >= 0, "0 or more"),
        "ema_kimg": (recipe.ema_kimg > 0, "above 0"),
        "ema_rampup": (recipe.ema_rampup > 0, "above 0"),
        "stability": (recipe.stability in STABILITY, f"one of {', '.join(STABILITY)}"),
        "precision": (recipe.precision in PRECISIONS, "auto, bf16 or fp32"),
    }
