"""The networks in PyTorch as sessions: they compute what the exported graph does."""

import numpy as np
import pytest

from assetgen.package import verify_package
from assetgen.runtime import open_session, precision_of
from assetgen.trial import trial_inputs
from export.torch_session import openers


@pytest.fixture(scope="module")
def eager(runs):
    return openers(*runs, 1)["pytorch eager"]()


@pytest.mark.parametrize("edge_px", [64, 128])
def test_eager_computes_what_the_package_does(eager, exported, edge_px):
    package = verify_package(exported)
    feeds = trial_inputs(package.manifest, edge_px, 0)
    wanted = open_session(package, "cpu", 1).run(feeds)
    found = eager.run(feeds)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4)


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
