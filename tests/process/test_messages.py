"""Messages between parent and child: whole, in parts, with descriptors, and errors that stay what they are."""

import os
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assetgen import errors
from assetgen.errors import InternalError, PackageInvalid
from assetgen.process import messages
from assetgen.process.messages import LostError, Message, error_from_text, receive, send, text_of_error

NUMBER = st.integers(0, 2**64 - 1)


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@given(st.integers(0, 255), st.booleans(), st.integers(0, 2**32 - 1), NUMBER, NUMBER, st.binary(max_size=200_000))
def test_a_message_arrives_as_it_was(kind, half, model, run, other, text):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        message = Message(kind, half, model, run, other, other, other, text)
        sender = threading.Thread(target=send, args=(ours, message))
        sender.start()
        assert receive(theirs) == message
        sender.join()


def test_descriptors_come_along_and_are_closed_with_a_message_that_does_not_come_whole(pair):
    ours, theirs = pair
    read, write = os.pipe()
    send(ours, Message(messages.RUN, new=1, descriptors=[write]))
    found = receive(theirs, descriptors=True)
    (copy,) = found.descriptors
    os.write(copy, b"x")
    assert os.read(read, 1) == b"x"
    os.close(copy)

    socket.send_fds(ours, [b"half a head"], [write])
    ours.shutdown(socket.SHUT_WR)
    with pytest.raises(LostError):
        receive(theirs, descriptors=True)
    os.close(write)
    assert os.read(read, 1) == b"", "somebody still holds the other end"
    os.close(read)


def test_an_end_and_a_text_that_is_too_long_are_losses(pair):
    ours, theirs = pair
    ours.sendall(messages._HEAD.pack(1, 0, 0, 0, 0, 0, 0, 0, 2**31))
    with pytest.raises(LostError):
        receive(theirs)
    ours.close()
    with pytest.raises(LostError):
        receive(theirs)


KNOWN = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AssetgenError)]


@pytest.mark.parametrize("kind", KNOWN)
def test_every_error_stays_what_it_is(kind):
    error = kind("a, not b", hint="use b", field="x", metadata={"model": "m"})
    found = error_from_text(text_of_error(error))
    assert type(found) is (kind if kind is not errors.AssetgenError else InternalError)
    assert vars(found) == vars(error)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"reason": []}', b"null"])
def test_what_is_no_error_is_a_loss(text):
    with pytest.raises(LostError):
        error_from_text(text)


def test_an_error_of_a_reason_that_is_unknown_is_internal():
    text = text_of_error(PackageInvalid("x")).replace(b"PACKAGE_INVALID", b"NEWER")
    assert type(error_from_text(text)) is InternalError
