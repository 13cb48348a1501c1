"""One training file and one thread for the tests of training."""

import pytest
import torch

from tests.helpers.tiny_runs import write_data


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Sums are taken in another order with other numbers of threads; processes and tests shall agree bit for bit."""
    torch.set_num_threads(1)
