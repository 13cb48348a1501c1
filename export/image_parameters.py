"""The request parameters of models that take a picture, as plug-ins show them; of ours manifest and postprocess."""

from __future__ import annotations

from collections.abc import Sequence

from assetgen.manifest import ParameterSpec
from assetgen.postprocess.decode import MEDIA_TYPES

_TILES = ParameterSpec(
    "tiles", "Tiles", "Whether the picture repeats itself; auto measures it on both axes.", "choice", "Picture",
    default="auto", values=("auto", "yes", "no"),
)  # fmt: skip


def _image(description: str) -> ParameterSpec:
    return ParameterSpec("image", "Picture", description, "image", "Picture", required=True, media_types=MEDIA_TYPES)


def parameters_of_style(looks: Sequence[str], *, palette: int = 0, pixel_size: int = 1) -> tuple[ParameterSpec, ...]:
    """Parameters of a model that repaints.

    Args:
        looks: what it can go over to, if there is a choice.
        palette, pixel_size: the defaults.
    """
    choice = ParameterSpec(
        "class", "Look", "What the picture shall look like.", "choice", "Look",
        default=looks[0] if looks else "", values=tuple(looks),
    )  # fmt: skip
    return (
        _image("What to repaint, such as the base colour of a material; alpha is kept."),
        *((choice,) if looks else ()),
        ParameterSpec(
            "strength", "Strength", "0 leaves the picture as it is, 1 repaints it in full.", "float", "Look",
            minimum=0.0, maximum=1.0, default=1.0,
        ),
        ParameterSpec(
            "palette", "Colours", "Number of colours of the result; 0 leaves them all.", "int", "Look",
            minimum=0, maximum=256, default=palette,
        ),
        ParameterSpec(
            "pixel_size", "Pixel size", "Drawn so many times smaller, every pixel a square.", "int", "Look",
            minimum=1, maximum=64, default=pixel_size,
        ),
        _TILES,
    )  # fmt: skip


def parameters_of_photo(classes: Sequence[str]) -> tuple[ParameterSpec, ...]:
    """Parameters of a model that makes maps of a photo."""
    return (
        _image("The base colour, evenly lit and seen from above."),
        ParameterSpec(
            "class", "Material", "What the picture shows.", "choice", "Picture",
            default=classes[0], values=tuple(classes),
        ),
        _TILES,
        ParameterSpec(
            "relief", "Relief", "Multiplies the depth from which normals and occlusion are derived.", "float",
            "Surface", minimum=0.0, maximum=4.0, default=1.0,
        ),
        ParameterSpec(
            "roughness_shift", "Roughness shift", "Added to roughness, which stays within 0 and 1.", "float",
            "Surface", minimum=-1.0, maximum=1.0, default=0.0,
        ),
    )  # fmt: skip
