"""The mark that a picture was made by a trained model, found by independent readers."""

import io
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image

from assetgen.postprocess.encode import encode
from assetgen.postprocess.xmp import DigitalSourceType, xmp_packet
from assetgen.types import Encoding, PixelFormat


@pytest.mark.parametrize("source_type", DigitalSourceType)
def test_a_reader_of_xmp_finds_the_source_type_and_our_facts(source_type):
    facts = {"seed": "7", "model": 'tiles "A" <1> & ü'}
    packet = xmp_packet(facts, source_type)
    pixels = np.zeros((4, 4, 3), np.uint8)
    data = encode(pixels, PixelFormat.RGB8, Encoding.PNG, metadata=packet)
    with Image.open(io.BytesIO(data)) as picture:
        root = ElementTree.fromstring(picture.info["xmp"])
    description = root.find("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}RDF")[0]
    term = description.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    assert term == f"http://cv.iptc.org/newscodes/digitalsourcetype/{source_type}"
    assert {name: description.get(f"{{urn:assetgen:xmp:1#}}{name}") for name in facts} == facts
    assert (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) == pixels).all()


def test_equal_facts_give_equal_packets_in_any_order():
    assert xmp_packet({"a": "1", "b": "2"}) == xmp_packet({"b": "2", "a": "1"})
    assert xmp_packet() == xmp_packet({})


@pytest.mark.parametrize("facts", [{"Seed": "1"}, {"a b": "1"}, {"": "1"}, {"x": "a\0b"}, {"x": "a\nb"}])
def test_facts_that_xml_cannot_hold_are_refused(facts):
    with pytest.raises(ValueError, match="properties"):
        xmp_packet(facts)
