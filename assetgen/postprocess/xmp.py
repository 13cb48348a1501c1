"""The mark of a picture that a trained model made: an XMP packet by IPTC's vocabulary; standard library."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from enum import StrEnum

_PROPERTY_NAME = re.compile(r"[a-z][a-z0-9_]*")


class DigitalSourceType(StrEnum):
    """How a picture came about, by the terms of IPTC's vocabulary."""

    TRAINED_ALGORITHMIC_MEDIA = "trainedAlgorithmicMedia"
    COMPOSITE_WITH_TRAINED_ALGORITHMIC_MEDIA = "compositeWithTrainedAlgorithmicMedia"


def xmp_packet(
    properties: Mapping[str, str] | None = None,
    source_type: DigitalSourceType = DigitalSourceType.TRAINED_ALGORITHMIC_MEDIA,
) -> bytes:
    """Return an XMP packet that marks a picture as made by a trained model.

    Args:
        properties: more facts in a namespace of our own, such as ``model`` or ``seed``: lower_snake_case names to
            text; written in sorted order, so equal properties give equal bytes.
        source_type: what IPTC's DigitalSourceType says.
    """
    facts = []
    for name, value in sorted((properties or {}).items()):
        if not _PROPERTY_NAME.fullmatch(name):
            raise ValueError(f"properties: {name!r} is not a lower_snake_case name")
        if any(ord(character) < 32 for character in value):
            raise ValueError(f"properties[{name}]: control characters cannot stand in XML")
        facts.append(f' assetgen:{name}="{html.escape(value)}"')
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        ' xmlns:assetgen="urn:assetgen:xmp:1#"'
        f' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/{source_type}"'
        f'{"".join(facts)}/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()
