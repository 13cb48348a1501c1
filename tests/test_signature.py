"""Signatures of packages: ours are read by the library's own tool and its by ours; what is not signed is refused."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from assetgen.errors import ConfigInvalid, OutputUnwritable, PackageInvalid, PolicyViolated, RuntimeMissing
from assetgen.package import SIGNATURE_NAME, verify_package
from assetgen.signature import Signers, make_keys, sign_package
from assetgen.store import bundled_models_folder, open_store
from tests.helpers.altered_graphs import with_operations
from tests.helpers.serving import write_model
from tests.helpers.tiny_package import write_tiny_package


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two pairs of keys: the private and the public one of each."""
    place = tmp_path_factory.mktemp("keys")
    return [(place / name, make_keys(place / name)) for name in ("studio", "stranger")]


@pytest.fixture
def package(tmp_path):
    write_tiny_package(tmp_path / "models" / "tiny")
    return tmp_path / "models" / "tiny"


def key_file(path, key, password=b""):
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    path.with_suffix(".pub").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
    return path, path.with_suffix(".pub")


def refused(folder, signers, reason):
    with pytest.raises(PackageInvalid, match=reason) as caught:
        signers.check(verify_package(folder))
    assert len(caught.value.message) < 1000


def library(*arguments):
    """The command line of the library, which knows nothing of ours."""
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_what_is_signed_is_taken_and_its_digest_stays(package, keys):
    (private, public), (_, other) = keys
    before = verify_package(package).digest
    refused(package, Signers([public]), r"not signed, model\.sig is missing")
    sign_package(package, private)
    verified = verify_package(package)
    assert verified.digest == before
    Signers([public]).check(verified)
    Signers([other, public]).check(verified)
    refused(package, Signers([other]), "not by a key that counts, for these files: Key mismatch")


def test_a_signature_names_every_file(package, keys):
    sign_package(package, keys[0][0])
    bundle = json.loads((package / SIGNATURE_NAME).read_text(encoding="utf-8"))
    assert bundle["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    assert statement["predicateType"] == "https://model_signing/signature/v1.0"
    named = {each["name"] for each in statement["predicate"]["resources"]}
    assert named == {path.name for path in package.iterdir()} - {SIGNATURE_NAME}


def test_the_library_reads_ours_and_we_read_its(package, keys):
    (private, public), _ = keys
    verify = ["verify", "key", package, "--signature", package / SIGNATURE_NAME, "--public_key", public]
    sign_package(package, private)
    assert library(*verify) == (0, "Verification succeeded\n")
    (package / "NOTICE").write_text("altered\n", encoding="utf-8")
    status, text = library(*verify)
    assert status != 0
    assert "Extra files found" in text

    (package / "NOTICE").unlink()
    (package / SIGNATURE_NAME).unlink()
    done = library("sign", "key", package, "--signature", package / SIGNATURE_NAME, "--private_key", private)
    assert done[0] == 0, done[1]
    Signers([public]).check(verify_package(package))


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_every_curve_that_is_allowed(package, tmp_path, curve):
    private, public = key_file(tmp_path / "key.pem", ec.generate_private_key(curve), b"a password")
    with pytest.raises(ConfigInvalid, match="not with this password"):
        sign_package(package, private)
    with pytest.raises(ConfigInvalid, match="not with this password"):
        sign_package(package, private, "another")
    assert not (package / SIGNATURE_NAME).exists()
    sign_package(package, private, "a password")
    Signers([public]).check(verify_package(package))


def test_keys_that_cannot_be_used_are_named(package, tmp_path, keys):
    private, public = key_file(tmp_path / "rsa.pem", rsa.generate_private_key(65537, 2048))
    with pytest.raises(ConfigInvalid, match=r"rsa\.pub: not a public key that can be used: of another kind"):
        Signers([public])
    with pytest.raises(ConfigInvalid, match=r"rsa\.pem: not a private key that can sign.*of another kind"):
        sign_package(package, private)
    small, known = key_file(tmp_path / "small.pem", ec.generate_private_key(ec.SECP256K1()))
    with pytest.raises(ConfigInvalid, match="Unsupported key for curve 'secp256k1'"):
        Signers([known])
    with pytest.raises(ConfigInvalid, match="Unsupported key for curve 'secp256k1'"):
        sign_package(package, small)
    with pytest.raises(ConfigInvalid, match="studio: not a public key"):
        Signers([keys[0][1], keys[0][0]])
    with pytest.raises(ConfigInvalid, match="absent: the key cannot be read: No such file"):
        Signers([tmp_path / "absent"])
    with pytest.raises(ConfigInvalid, match="absent: the key cannot be read: No such file"):
        sign_package(package, tmp_path / "absent")


def test_new_keys_are_their_owners_and_overwrite_nothing(tmp_path):
    private = tmp_path / "studio.key"
    public = make_keys(private, "a password")
    assert public == tmp_path / "studio.key.pub"
    assert private.read_text(encoding="ascii").startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    if os.name != "nt":
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
    before = private.read_bytes(), public.read_bytes()
    with pytest.raises(OutputUnwritable, match=r"studio\.key: is there already"):
        make_keys(private)
    assert (private.read_bytes(), public.read_bytes()) == before
    private.unlink()
    with pytest.raises(OutputUnwritable, match=r"studio\.key\.pub: is there already"):
        make_keys(private)
    assert public.read_bytes() == before[1]
    assert not private.exists()
    with pytest.raises(OutputUnwritable, match="the keys cannot be written: No such file"):
        make_keys(tmp_path / "absent" / "studio.key")


def test_a_damaged_package_is_not_signed_and_a_former_signature_stays(package, keys):
    sign_package(package, keys[0][0])
    before = (package / SIGNATURE_NAME).read_bytes()
    graph = package / "generator.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(PackageInvalid, match=r"generator\.onnx"):
        sign_package(package, keys[1][0])
    assert (package / SIGNATURE_NAME).read_bytes() == before


def test_a_store_takes_our_own_packages_and_signed_ones_only(tmp_path, keys):
    (private, public), _ = keys
    ours = bundled_models_folder() / "pixel-dungeon"
    signers = Signers([public])
    assert list(open_store([ours], signers)) == ["pixel-dungeon"]
    copy = tmp_path / "copy"
    shutil.copytree(ours, copy)
    with pytest.raises(PackageInvalid, match="copy: not signed"):
        open_store([copy], signers)
    assert list(open_store([copy])) == ["pixel-dungeon"]
    sign_package(copy, private)
    assert list(open_store([copy], signers)) == ["pixel-dungeon"]


def test_what_is_not_signed_is_not_parsed(tmp_path, keys):
    (private, public), _ = keys
    strange = with_operations(write_model(tmp_path), "Twist", domain="com.example").folder
    with pytest.raises(PackageInvalid, match="not signed"):
        open_store([strange], Signers([public]))
    sign_package(strange, private)
    with pytest.raises(PolicyViolated):  # a signature says whose it is, not that it may do what none may
        open_store([strange], Signers([public]))


@pytest.mark.parametrize(
    ("module", "name", "use"),
    [
        ("model_signing", "model_signing", lambda public, _: Signers([public])),
        ("cryptography.hazmat.primitives", "cryptography", lambda _, place: make_keys(place / "key")),
    ],
)
def test_without_the_packages_of_the_extra(keys, tmp_path, monkeypatch, module, name, use):
    for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RuntimeMissing, match=f"^{name} is not installed; signatures") as caught:
        use(keys[0][1], tmp_path)
    assert "assetgen[signing]" in caught.value.hint
