"""Packages whose signature is forged, borrowed, damaged or made to hurt: each is refused with one error of ours."""

from __future__ import annotations

import base64
import json
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assetgen.errors import PackageInvalid
from assetgen.package import MAX_SIGNATURE_BYTES, SIGNATURE_NAME, read_manifest, verify_package, write_manifest
from assetgen.signature import Signers, make_keys, sign_package
from tests.helpers.tiny_package import write_tiny_package


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    private = tmp_path_factory.mktemp("keys") / "studio"
    return private, make_keys(private)


@pytest.fixture(scope="module")
def signers(keys):
    return Signers([keys[1]])


@pytest.fixture
def package(tmp_path, keys):
    folder = tmp_path / "tiny"
    write_tiny_package(folder)
    sign_package(folder, keys[0])
    return folder


def refused(folder, signers, reason):
    with pytest.raises(PackageInvalid, match=reason) as caught:
        signers.check(verify_package(folder))
    assert len(caught.value.message) < 1000


def edit(folder, change):
    """Change the signature's bundle."""
    path = folder / SIGNATURE_NAME
    bundle = json.loads(path.read_text(encoding="utf-8"))
    change(bundle)
    path.write_text(json.dumps(bundle), encoding="utf-8")


def restate(bundle, change):
    """Change what is signed, as a forger without the key would."""
    envelope = bundle["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    change(statement)
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()


def test_a_package_made_anew_under_a_signature_that_was_good(package, signers):
    """Each file is what the manifest says, and the manifest is a stranger's."""
    signers.check(verify_package(package))
    (package / "NOTICE").write_text("by somebody else\n", encoding="utf-8")
    signature = (package / SIGNATURE_NAME).read_bytes()
    (package / SIGNATURE_NAME).unlink()
    write_manifest(package, read_manifest(package / "manifest.json")[0])
    (package / SIGNATURE_NAME).write_bytes(signature)
    refused(package, signers, "Signature mismatch")


def test_the_signature_of_another_package(package, tmp_path, signers):
    other = tmp_path / "other"
    write_tiny_package(other, "tiny", weight_seed=1)
    shutil.copy(package / SIGNATURE_NAME, other)
    refused(other, signers, "Signature mismatch")


def test_a_statement_rewritten_for_other_files(package, tmp_path, signers):
    """The digests are right, and nobody signed them."""
    other = tmp_path / "other"
    write_tiny_package(other, "tiny", weight_seed=1)
    shutil.copy(package / SIGNATURE_NAME, other)
    found = verify_package(other)
    digests = {entry.path: entry.sha256 for entry in found.manifest.files} | {"manifest.json": found.digest}

    def change(statement):
        for resource in statement["predicate"]["resources"]:
            resource["digest"] = digests[resource["name"]]

    edit(other, lambda bundle: restate(bundle, change))
    refused(other, signers, "InvalidSignature")


def test_the_library_s_older_form_of_signed_bytes_lets_nothing_in(package, signers):
    edit(package, lambda bundle: restate(bundle, lambda statement: statement.update(predicateType="x")))
    refused(package, signers, "InvalidSignature")


def test_no_key_is_taken_from_the_signature(package, tmp_path, signers):
    """A stranger signs and says that the key is the studio's."""
    hint = json.loads((package / SIGNATURE_NAME).read_text())["verificationMaterial"]["publicKey"]["hint"]
    stranger = tmp_path / "stranger"
    make_keys(stranger)
    sign_package(package, stranger)
    refused(package, signers, "Key mismatch")
    edit(package, lambda bundle: bundle["verificationMaterial"]["publicKey"].update(hint=hint))
    refused(package, signers, "InvalidSignature")


def test_a_folder_changed_between_two_looks(package, tmp_path, signers):
    """What counts is what was verified, not what lies there when the signature is read."""
    good = tmp_path / "good"
    shutil.copytree(package, good)
    (package / SIGNATURE_NAME).unlink()
    write_tiny_package(package, "tiny", weight_seed=1)
    verified = verify_package(package)
    shutil.rmtree(package)
    good.rename(package)
    signers.check(verify_package(package))
    with pytest.raises(PackageInvalid, match="Signature mismatch"):
        signers.check(verified)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\0",
        b"[]",
        b"null",
        b"{}",
        b'{"verificationMaterial": []}',
        b'{"verificationMaterial": {}, "mediaType": "x"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 100_000,
        b"-----BEGIN PUBLIC KEY-----",
    ],
    ids=["empty", "binary", "list", "null", "no-fields", "list-inside", "no-type", "deep", "deep-keys", "long", "pem"],
)
def test_bytes_that_are_no_signature(package, signers, data):
    (package / SIGNATURE_NAME).write_bytes(data)
    refused(package, signers, "not by a key that counts")


@pytest.mark.parametrize(
    "change",
    [
        lambda bundle: bundle["dsseEnvelope"].update(signatures=[]),
        lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(sig=""),
        lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(sig="AAAA"),
        lambda bundle: bundle["dsseEnvelope"].update(payloadType="text/plain"),
        lambda bundle: bundle["dsseEnvelope"].update(payload=""),
        lambda bundle: bundle.pop("dsseEnvelope"),
        lambda bundle: bundle.pop("verificationMaterial"),
        lambda bundle: bundle.update(mediaType="text/plain"),
    ],
    ids=["none", "empty", "short", "type", "payload", "no-envelope", "no-material", "media"],
)
def test_a_bundle_that_lacks_what_counts(package, signers, change):
    edit(package, change)
    refused(package, signers, "not by a key that counts")


def test_files_that_are_no_plain_small_file(package, tmp_path):
    path = package / SIGNATURE_NAME
    good = path.read_bytes()
    path.write_bytes(b" " * (MAX_SIGNATURE_BYTES + 1))
    with pytest.raises(PackageInvalid, match=rf"model\.sig: has {MAX_SIGNATURE_BYTES + 1} bytes"):
        verify_package(package)
    path.unlink()
    (tmp_path / "elsewhere").write_bytes(good)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PackageInvalid, match=r"model\.sig: a symbolic link"):
        verify_package(package)
    path.unlink()
    os.link(tmp_path / "elsewhere", path)
    with pytest.raises(PackageInvalid, match=r"model\.sig: a hard link"):
        verify_package(package)
    path.unlink()
    path.mkdir()
    with pytest.raises(PackageInvalid, match=r"model\.sig: not a plain file"):
        verify_package(package)


def test_no_signature_may_be_listed_by_the_manifest(package):
    """Else a package could name its own signature as one of its files."""
    document = json.loads((package / "manifest.json").read_text(encoding="utf-8"))
    document["files"].append({"path": SIGNATURE_NAME, "size_bytes": 1, "sha256": "0" * 64})
    (package / "manifest.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(PackageInvalid, match=r"model\.sig"):
        verify_package(package)


@pytest.fixture(scope="module")
def altered(tmp_path_factory, keys):
    """A package that nobody signed, and the signature of one that was."""
    place = tmp_path_factory.mktemp("altered")
    write_tiny_package(place / "signed")
    sign_package(place / "signed", keys[0])
    write_tiny_package(place / "altered", weight_seed=1)
    return place / "altered", (place / "signed" / SIGNATURE_NAME).read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3)), max_size=4),
    end=st.integers(0, 10_000),
)
def test_no_bytes_sign_what_nobody_signed(altered, signers, changes, end):
    folder, good = altered
    data = bytearray(good[: len(good) - end % 50 * (end % 3 == 0)])
    for place, values in changes:
        data[place % (len(data) + 1) : place % (len(data) + 1) + len(values)] = values
    (folder / SIGNATURE_NAME).write_bytes(bytes(data))
    refused(folder, signers, "not by a key that counts")
