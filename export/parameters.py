"""The request parameters of an exported texture model, as plug-ins show them; of ours manifest only."""

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


_TRUNCATION = ParameterSpec(
    "truncation", "Variety", "0 gives the typical material of the class, 1 its full variety.", "float", "Material",
    minimum=0.0, maximum=1.0, default=0.8,
)  # fmt: skip


def parameters_of_pictures(classes: Sequence[str], *, told: bool) -> tuple[ParameterSpec, ...]:
    """Parameters of a model of pictures of one size; ``told``: it knows classes."""
    return (*(_of_classes(classes) if told else ()), _TRUNCATION)


def _of_classes(classes: Sequence[str]) -> tuple[ParameterSpec, ...]:
    return (
        ParameterSpec(
            "class", "Class", "What the material is.", "choice", "Material", default=classes[0], values=tuple(classes),
        ),
        ParameterSpec(
            "blend_class", "Blend with", "Second class, mixed in by the amount below.", "choice", "Material",
            default="none", values=("none", *classes),
        ),
        ParameterSpec(
            "blend", "Blend amount", "Share of the second class.", "float", "Material",
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
        *_of_classes(classes),
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
