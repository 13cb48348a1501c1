"""The networks in PyTorch as sessions: they compute what the exported graph does."""

import numpy as np
import pytest
import torch
from torch._dynamo import config as dynamo

from assetgen import optimize
from assetgen.errors import ConfigInvalid
from assetgen.package import verify_package
from assetgen.runtime import open_session, precision_of
from assetgen.trial import trial_inputs
from export.networks import graph_from_runs, read_runs
from export.torch_session import TorchSession, openers
from tests.helpers.tiny_package import tiny_manifest


@pytest.fixture(scope="module")
def eager(exported, runs):
    return openers(verify_package(exported).manifest, *runs, 1)["pytorch eager"]()


@pytest.mark.parametrize("edge_px", [64, 128])
def test_eager_computes_what_the_package_does(eager, exported, edge_px):
    package = verify_package(exported)
    feeds = trial_inputs(package.manifest, edge_px, 0)
    wanted = open_session(package, "cpu", 1).run(feeds)
    found = eager.run(feeds)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4)


def test_runs_that_are_not_the_packages_are_refused_before_they_are_run(runs):
    with pytest.raises(ConfigInvalid, match=r"tiny was not made of .*: they differ in ") as caught:
        openers(tiny_manifest(), *runs, 1)
    assert "exported from" in caught.value.hint


def test_no_size_falls_back_to_eager_unseen(runs, monkeypatch):
    """PyTorch compiles eight sizes, and then goes on uncompiled unless it is told not to."""
    monkeypatch.setattr(dynamo, "recompile_limit", 8)
    monkeypatch.setattr(dynamo, "fail_on_recompile_limit_hit", False)
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    TorchSession(graph_from_runs(read_runs(*runs)), 1, compiled=True)
    most = len(optimize.EDGES_PX) * len(optimize.BATCHES) + 2
    assert dynamo.recompile_limit >= most
    assert dynamo.fail_on_recompile_limit_hit


def test_the_backend_tells_what_it_is(eager):
    assert eager.backend.startswith("pytorch-")
    assert "-eager/cpu/fp32/" in eager.backend
    assert (precision_of(eager.backend), eager.device, eager.splits) == ("fp32", "cpu", False)


def test_it_runs_by_no_halves(eager):
    with pytest.raises(RuntimeError, match="there to be measured"):
        eager.run({}, half=True)
    eager.join()
    eager.terminate()
    eager.close()
