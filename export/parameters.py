"""The request parameters of exported models, as plug-ins show them; of ours manifest only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from assetgen.manifest import PARTS, PATTERNS, ParameterSpec


def _slider(name: str, label: str, description: str) -> ParameterSpec:
    return ParameterSpec(name, label, description, "float", "Look", minimum=-1.0, maximum=1.0, default=0.0)


# One for every property of export/properties.py.
SLIDERS = {
    spec.name: spec
    for spec in (
        _slider("brightness", "Brightness", "Darker or lighter."),
        _slider("warmth", "Warmth", "From bluish to yellowish."),
        _slider("tint", "Tint", "From greenish to reddish."),
        _slider("saturation", "Saturation", "Greyer or more colourful."),
        _slider("contrast", "Contrast", "Even, or with deep darks and bright lights."),
        _slider("fineness", "Fineness", "From soft spots to fine grain."),
    )
}


def _variation(name: str, most: str) -> ParameterSpec:
    label = name.replace("_", " ").capitalize()
    return _slider(
        name, label, f"Found without labels, another in every class. Of what has a name, it changes mostly {most}."
    )


# What a request gets that names none. At 0.8 the starter materials differ less than real ones do (docs/evaluation.md).
VARIETY = 0.9
_TRUNCATION = ParameterSpec(
    "truncation", "Variety", "0 gives the typical material of the class, 1 its full variety.", "float", "Material",
    minimum=0.0, maximum=1.0, default=VARIETY,
)  # fmt: skip


def parameters_of_pictures(classes: Sequence[str], *, told: bool) -> tuple[ParameterSpec, ...]:
    """Parameters of a model of pictures of one size; ``told``: it knows classes."""
    return (*(parameters_of_classes(classes) if told else ()), _TRUNCATION)


def parameters_of_classes(
    classes: Sequence[str], what: str = "What the material is.", group: str = "Material"
) -> tuple[ParameterSpec, ...]:
    """Choice and blending of classes."""
    return (
        ParameterSpec("class", "Class", what, "choice", group, default=classes[0], values=tuple(classes)),
        ParameterSpec(
            "blend_class", "Blend with", "Second class, mixed in by the amount below.", "choice", group,
            default="none", values=("none", *classes),
        ),
        ParameterSpec(
            "blend", "Blend amount", "Share of the second class.", "float", group,
            minimum=0.0, maximum=1.0, default=0.5,
        ),
    )  # fmt: skip


def parameters_of_model(
    classes: Sequence[str], sliders: Sequence[str], variations: Mapping[str, str] | None = None
) -> tuple[ParameterSpec, ...]:
    """Parameters of a texture model, in the order of a form.

    Args:
        sliders: names in ``SLIDERS``.
        variations: by name, what each changes most.
    """
    return (
        *parameters_of_classes(classes),
        _TRUNCATION,
        ParameterSpec(
            "pattern", "Pattern", "How bricks, tiles or boards are laid; auto follows the class.", "choice",
            "Layout", default="auto", values=("auto", *PATTERNS),
        ),
        ParameterSpec(
            "pattern_scale", "Pattern scale", "Multiplies the size of the cells.", "float", "Layout",
            minimum=0.25, maximum=4.0, default=1.0,
        ),
        ParameterSpec(
            "variation_seed", "Layout seed", "Keeps the style and draws another layout; -1 follows the seed.", "int",
            "Layout", minimum=-1, maximum=2**32 - 1, default=-1,
        ),
        ParameterSpec(
            "relief", "Relief", "Multiplies the depth from which normals and occlusion are derived.", "float",
            "Surface", minimum=0.0, maximum=4.0, default=1.0,
        ),
        ParameterSpec(
            "roughness_shift", "Roughness shift", "Added to roughness, which stays within 0 and 1.", "float",
            "Surface", minimum=-1.0, maximum=1.0, default=0.0,
        ),
        ParameterSpec(
            "mix_seed", "Mix with seed", "Another seed whose style is mixed in; -1 mixes nothing.", "int",
            "Mix", minimum=-1, maximum=2**32 - 1, default=-1,
        ),
        ParameterSpec(
            "mix", "Mix amount", "0 keeps the style of the seed, 1 takes that of the other.", "float",
            "Mix", minimum=0.0, maximum=1.0, default=0.5,
        ),
        ParameterSpec(
            "mix_part", "Mix what", "coarse: base colours and large forms; fine: grain and contrast.", "choice",
            "Mix", default="all", values=("all", *PARTS),
        ),
        *(SLIDERS[name] for name in sliders),
        *(_variation(name, most) for name, most in (variations or {}).items()),
    )  # fmt: skip


# Sliders of sprites beside those of SLIDERS; one for every property of export/sprite_sliders.py.
SPRITE_SLIDERS = {
    **SLIDERS,
    "size": _slider("size", "Size", "Smaller or larger."),
    "tallness": _slider("tallness", "Tallness", "From wide to tall."),
}


def parameters_of_sprites(
    classes: Sequence[str], palette: int, sliders: Sequence[str] = ()
) -> tuple[ParameterSpec, ...]:
    """Parameters of a model of sprites, in the order of a form.

    Args:
        palette: colours of its pixel art, which then has hard edges, too, unless a request says otherwise; 0 if it
            makes none.
        sliders: names in ``SPRITE_SLIDERS``.
    """
    return (
        *parameters_of_classes(classes, "What the prop is.", "Prop"),
        ParameterSpec(
            "truncation", "Variety", "Less is more typical and fails less often; 0 gives one prop a class.", "float",
            "Prop", minimum=0.0, maximum=1.0, default=0.8,
        ),
        ParameterSpec(
            "palette", "Colours", "Number of colours, 2 or more, for pixel art; 0 leaves all.", "int", "Pixels",
            minimum=0, maximum=256, default=palette,
        ),
        ParameterSpec(
            "pixel_size", "Pixel size", "Every pixel becomes a square of this edge.", "int", "Pixels",
            minimum=1, maximum=8, default=1,
        ),
        ParameterSpec(
            "alpha", "Edges", "soft: see-through edges; hard: every pixel is there or not.", "choice", "Pixels",
            default="hard" if palette else "soft", values=("soft", "hard"),
        ),
        ParameterSpec(
            "alpha_threshold", "Edge threshold", "Of hard edges: more makes thinner props.", "float", "Pixels",
            minimum=0.0, maximum=1.0, default=0.5,
        ),
        ParameterSpec(
            "trim", "Trim", "Cuts to what is visible.", "choice", "Sprite", default="off", values=("off", "on"),
        ),
        ParameterSpec(
            "trim_margin", "Margin", "Left around what is visible, in pixels before they are enlarged.", "int",
            "Sprite", minimum=0, maximum=16, default=1,
        ),
        ParameterSpec(
            "pivot", "Pivot", "The point of what is visible that is the sprite's place, for the JSON file.", "choice",
            "Sprite", default="center",
            values=("center", "bottom", "top", "left", "right", "bottom_left", "bottom_right", "top_left", "top_right"),
        ),
        ParameterSpec(
            "sidecar", "JSON file", "Adds pivot, trim and original size as a file.", "choice", "Sprite",
            default="off", values=("off", "on"),
        ),
        *(SPRITE_SLIDERS[name] for name in sliders),
    )  # fmt: skip
