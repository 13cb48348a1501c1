"""A real server whose folder of models changes: new calls meet what is there, and what is wrong changes nothing."""

import re
import shutil
import time

import pytest

from assetgen.client import Client
from assetgen.launch import ServerProcess
from assetgen.server.watch import state_of
from assetgen.types import Artifact, Finished, Request, Started
from tests.helpers.altered_graphs import NOT_A_NUMBER, with_operations
from tests.helpers.serving import files, write_model

SMALL = Request("tiny", seed=7, width_px=32, height_px=32)


def until(read, wanted):
    end_s = time.monotonic() + 60
    while (found := read()) != wanted:
        assert time.monotonic() < end_s, found
        time.sleep(0.05)


def swap(folder, newer):
    """As an operator would: beside it, then in its place."""
    shutil.rmtree(folder)
    newer.rename(folder)


def test_packages_come_go_and_change_without_a_restart(tmp_path):
    models = tmp_path / "models"
    first = write_model(models)
    arguments = ["--models", str(models), "--device", "cpu", "--threads", "1", "--watch-s", "0.05"]
    with ServerProcess(arguments) as server, Client(server.address) as client:
        digests = lambda: {model.id: model.digest for model in client.models()}  # noqa: E731
        before = files(client.generate(SMALL))
        running = client.generate(Request("tiny", seed=7, count=64, width_px=512, height_px=512))
        assert isinstance(next(running), Started)

        second = write_model(tmp_path / "aside", channels=12)
        swap(first.folder, second.folder)
        until(digests, {"tiny": second.digest})
        assert files(client.generate(SMALL)) != before
        events = list(running)  # begun on the first, whose files are gone
        assert isinstance(events[-1], Finished)
        assert sum(isinstance(event, Artifact) for event in events) == 64 * 6

        more = write_model(models, "more")
        until(digests, {"more": more.digest, "tiny": second.digest})
        (more.folder / "extra.txt").write_text("not in the manifest")
        (models / "tiny" / "extra.txt").write_text("not in the manifest")
        until(lambda: "the models served before stay" in server.errors(), True)
        assert digests() == {"more": more.digest, "tiny": second.digest}
        assert files(client.generate(SMALL))

        shutil.rmtree(more.folder)
        (models / "tiny" / "extra.txt").unlink()
        until(digests, {"tiny": second.digest})
        assert "Traceback" not in server.errors()


def test_a_package_that_cannot_be_served_leaves_the_others_as_they_are(tmp_path):
    """One breaks the policy, one makes no numbers; then comes one that is sound."""
    models = tmp_path / "models"
    tiny = write_model(models)
    arguments = ["--models", str(models), "--device", "cpu", "--threads", "1", "--watch-s", "0.05"]
    with ServerProcess(arguments) as server, Client(server.address) as client:
        before = files(client.generate(SMALL))
        aside = tmp_path / "aside"
        strange = with_operations(write_model(aside, "strange"), "Twist", domain="com.example")
        nameless = with_operations(write_model(aside, "nameless"), *NOT_A_NUMBER)
        for package, rule in (
            (strange, "operator domain 'com.example', allowed is ONNX's own"),
            (nameless, "model 'nameless' cannot be served: .* 'base_color' holds values that are not finite"),
        ):
            moved = package.folder.rename(models / package.manifest.id)
            until(lambda rule=rule: bool(re.search(f"{rule}.*; the models served before stay", server.errors())), True)
            assert {model.id: model.digest for model in client.models()} == {"tiny": tiny.digest}
            assert files(client.generate(SMALL)) == before
            shutil.rmtree(moved)
        write_model(aside, "sound").folder.rename(models / "sound")
        until(lambda: [model.id for model in client.models()], ["sound", "tiny"])
        assert files(client.generate(Request("sound", seed=7, width_px=32, height_px=32)))
        assert "Traceback" not in server.errors()


def test_what_changes_is_seen_and_what_cannot_be_read_is_nothing(tmp_path):
    package = write_model(tmp_path)
    before = state_of([tmp_path, tmp_path / "absent"])
    assert state_of([tmp_path]) == before
    manifest = package.folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    assert state_of([tmp_path]) != before
    assert state_of([tmp_path / "absent"]) == ()


@pytest.mark.parametrize("lazy", [True, False])
def test_a_new_package_is_opened_at_once_or_when_it_is_needed(tmp_path, lazy):
    from assetgen.local import open_service
    from assetgen.server.watch import Watch

    models = tmp_path / "models"
    write_model(models)
    service = open_service([models], "cpu", 1)
    watch = Watch(service, [models], 0.01, preload=not lazy)
    newer = write_model(tmp_path / "aside", "newer")
    newer.folder.rename(models / "newer")  # at once: a package that is still being written would be opened, too
    until(lambda: [model.id for model in service.models()], ["newer", "tiny"])
    assert service.worker.is_open(newer) is not lazy
    watch.close()
    service.close()
