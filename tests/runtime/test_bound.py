"""Bound sessions with buffers in the processor's memory, where ONNX Runtime does all but capture."""

import threading

import numpy as np
import pytest

from assetgen.errors import Cancelled, InternalError
from assetgen.postprocess import finishing
from assetgen.postprocess.finishing import Terms
from assetgen.runtime import bound, open_session, ort, self_check
from assetgen.runtime.bound import BoundSession
from assetgen.runtime.finish import finished
from assetgen.types import MapKind
from tests.helpers import finishing_device
from tests.helpers.tiny_package import tiny_feeds

SIZES = [(2, 2), (4, 4), (2, 5), (6, 3), (3, 3), (5, 2)]


@pytest.fixture(scope="module")
def plain(package):
    return open_session(package, "cpu", 1)


class Watched:
    """ONNX Runtime's session; notes under which graph each run was, and can be made to wait or to fail."""

    def __init__(self, session):
        self.session, self.graphs, self.threads = session, [], set()
        self.begun, self.may_end, self.error = threading.Event(), threading.Event(), None
        self.may_end.set()

    def __getattr__(self, name):
        return getattr(self.session, name)

    def run_with_iobinding(self, binding, options):
        self.graphs.append(int(options.get_run_config_entry("gpu_graph_id")))
        self.threads.add(threading.current_thread().name)
        self.begun.set()
        self.may_end.wait(10)
        if self.error is not None:
            raise self.error
        self.session.run_with_iobinding(binding, options)


@pytest.fixture
def watched(package):
    module = ort.import_onnxruntime()
    options = ort.session_options(module)
    options.intra_op_num_threads = 1
    return Watched(ort.load_graph(module, package.read_graph(), options, [ort.CPU_PROVIDER], package))


@pytest.fixture
def session(watched):
    made = BoundSession(
        watched, ort.import_onnxruntime(), ("cpu", 0), "bound/cpu/fp32/x", "cpu", "asked for", captures=True
    )
    yield made
    watched.may_end.set()
    made.close()


def equal(first, second):
    return first.keys() == second.keys() and all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_it_computes_what_a_plain_session_does_at_every_size_and_batch(session, plain):
    for _ in range(2):  # the second time buffers and graphs are there, or were given up for others
        for cells in SIZES:
            for batch in (1, 3):
                feeds = tiny_feeds(batch=batch, cells=cells)
                assert equal(session.run(feeds), plain.run(feeds))
    self_check(session, tiny_feeds())


def test_outputs_are_the_callers_own(session):
    feeds = tiny_feeds()
    first = session.run(feeds)
    kept = {name: values.copy() for name, values in first.items()}
    session.run({**feeds, "z": feeds["z"] * 2})
    assert equal(first, kept)


def test_inputs_that_are_views_are_read_as_what_they_show(session, plain):
    feeds = tiny_feeds()
    turned = {**feeds, "grid": feeds["grid"][:, :, ::-1, :]}
    assert not turned["grid"].flags.c_contiguous
    assert equal(session.run(turned), plain.run(turned))


def test_whichever_input_changes_and_back_again_the_outputs_follow(session, plain):
    first, other = tiny_feeds(), {name: values * np.float32(0.5) for name, values in tiny_feeds().items()}
    assert equal(session.run(first), plain.run(first))
    for name in first:
        for feeds in ({**first, name: other[name]}, {**first, name: -first[name] * 0}, first):
            assert equal(session.run(feeds), plain.run(feeds)), name


def test_inputs_that_the_caller_changes_in_place_are_copied_again(session, plain):
    feeds = {name: values.copy() for name, values in tiny_feeds().items()}
    session.run(feeds)
    for values in feeds.values():
        values[...] = 0.5 * values
        assert equal(session.run(feeds), plain.run(feeds))


def test_few_values_that_lie_on_the_device_are_not_copied_there_again(session):
    feeds = tiny_feeds()
    session.run(feeds)
    (size,) = session._sizes.values()
    copied = []

    class Noted:
        def __init__(self, name, value):
            self.name, self.value = name, value

        def update_inplace(self, values):
            copied.append(self.name)
            self.value.update_inplace(values)

    size.inputs = {name: Noted(name, value) for name, value in size.inputs.items()}
    session.run({**feeds, "z": feeds["z"] * 2})
    many = {name for name, values in feeds.items() if values.size > bound.FEW}
    assert set(copied) == many | {"z"}
    assert len(many) < len(feeds) - 1


def test_every_size_has_a_graph_of_its_own_captured_after_a_run_without(session, watched):
    """ONNX Runtime captures at the first run under a new number, and replays what it has under an old one."""
    for cells in ((2, 2), (3, 3), (2, 2)):
        session.run(tiny_feeds(cells=cells))
    assert watched.graphs == [-1, 1, -1, 2, 1]


def test_a_size_that_was_given_up_gets_a_new_graph_for_its_new_buffers(session, watched):
    for cells in SIZES[: bound.SIZES_KEPT + 1]:
        session.run(tiny_feeds(cells=cells))
    session.run(tiny_feeds(cells=SIZES[0]))
    assert watched.graphs[-1] == bound.SIZES_KEPT + 2


def test_graphs_that_cannot_be_given_back_are_not_made_without_end(session, watched, monkeypatch):
    monkeypatch.setattr(bound, "MOST_GRAPHS", 2)
    for cells in SIZES[:3]:
        session.run(tiny_feeds(cells=cells))
    assert watched.graphs == [-1, 1, -1, 2, -1, -1]


def test_a_session_without_graphs_asks_for_none(watched):
    made = BoundSession(watched, ort.import_onnxruntime(), ("cpu", 0), "b/cpu/fp32/x", "cpu", "", captures=False)
    made.run(tiny_feeds())
    made.close()
    assert set(watched.graphs) == {-1}


def test_runs_of_many_threads_are_all_on_one_thread_of_its_own(session, watched, plain):
    """ONNX Runtime keeps a captured graph with the thread that ran it."""
    feeds = [tiny_feeds(cells=SIZES[i % 3], seed=i) for i in range(6)]
    found = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: session.run(feeds[i])})) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(equal(found[i], plain.run(feeds[i])) for i in range(6))
    assert len(watched.threads) == 1
    assert threading.current_thread().name not in watched.threads


def test_terminate_stops_what_waits_and_throws_away_what_runs(session, watched):
    watched.may_end.clear()
    ends = {}

    def work(owner):
        try:
            ends[owner] = session.run(tiny_feeds(), owner=owner)
        except Cancelled as error:
            ends[owner] = error

    threads = [threading.Thread(target=work, args=(owner,)) for owner in ("first", "second", "third")]
    threads[0].start()
    assert watched.begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(session._calls) < 3:
        threading.Event().wait(0.01)
    session.terminate("first")
    session.terminate("third")
    watched.may_end.set()
    for thread in threads:
        thread.join(10)
    assert [type(ends[owner]) for owner in ("first", "second", "third")] == [Cancelled, dict, Cancelled]


@pytest.mark.parametrize("change", [{"z": np.zeros((1, 16))}, {"more": np.zeros(1, np.float32)}])
def test_wrong_inputs_are_a_fault_of_ours_that_does_not_break_the_session(session, plain, change):
    with pytest.raises(InternalError, match=r"expected"):
        session.run(tiny_feeds() | change)
    assert equal(session.run(tiny_feeds()), plain.run(tiny_feeds()))


def test_a_run_that_fails_says_so_and_is_not_done_elsewhere(session, watched):
    watched.error = RuntimeError("CUDA failure 700: an illegal memory access\nmore")
    with pytest.raises(InternalError, match="bound/cpu/fp32/x: the graph failed: CUDA failure 700"):
        session.run(tiny_feeds())


@pytest.mark.parametrize("at", [0, 1], ids=["the first run", "the run that is captured"])
def test_a_run_that_does_not_fit_is_no_fault_and_leaves_no_half_captured_graph(session, watched, plain, at):
    """ONNX Runtime ends a capture even when the run fails, and would replay what there is of it."""
    small, large = tiny_feeds(), tiny_feeds(cells=(6, 6))
    session.run(small)
    watched.graphs.clear()
    run, full = watched.session.run_with_iobinding, RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=h")

    def fail(binding, options):
        if len(watched.graphs) > at:
            raise full
        run(binding, options)

    watched.session.run_with_iobinding = fail
    with pytest.raises(MemoryError, match="bound/cpu/fp32/x: not enough memory: out of memory"):
        session.run(large)
    watched.session.run_with_iobinding = run
    assert watched.graphs == [-1, 2][: at + 1]
    for feeds in (small, large, large):
        assert equal(session.run(feeds), plain.run(feeds))
    new = 2 + at  # for a number under which a capture began means what was captured
    assert watched.graphs == [*[-1, 2][: at + 1], 1, -1, new, new]


def test_a_closed_session_does_not_run(session):
    session.run(tiny_feeds())
    session.close()
    session.close()
    with pytest.raises(RuntimeError, match="was closed"):
        session.run(tiny_feeds())


def test_repeating_runs_the_same_graph_again_and_leaves_it_as_it_was(session, watched, plain):
    assert session.repeat(tiny_feeds(), 3) > 0
    assert watched.graphs == [-1, 1, 1, 1, 1]
    assert equal(session.run(tiny_feeds(seed=1)), plain.run(tiny_feeds(seed=1)))


def test_it_never_splits(session):
    session.join()
    assert not session.splits
    with pytest.raises(RuntimeError, match="by halves"):
        session.run(tiny_feeds(), half=True)


def test_with_the_terms_of_finishing_it_gives_pixels_and_without_them_maps(package, plain):
    session = finishing_device.open_model(package)
    assert session.finishes
    feeds = tiny_feeds(cells=(4, 6))
    assert equal(session.run(feeds), plain.run(feeds))
    wanted = frozenset([MapKind.NORMAL, MapKind.HEIGHT])
    terms = Terms(3.0, y_down=True, roughness_shift=0.0, metal=True, wanted=wanted)
    given = session.run({**feeds, finishing.NAME: terms.array()})
    maps = {
        MapKind(spec.map_kind): plain.run(feeds)[spec.name][0].transpose(1, 2, 0) for spec in package.manifest.outputs
    }
    expected = finished(maps, terms)
    made = finishing.material(given).maps
    assert made.keys() == wanted
    assert all(np.array_equal(made[kind], expected[kind]) for kind in wanted)
    session.close()


def test_one_that_does_not_finish_knows_no_terms(session):
    assert not session.finishes
    with pytest.raises(InternalError, match="the inputs are"):
        session.run({**tiny_feeds(), finishing.NAME: np.zeros(10, dtype=np.float32)})
