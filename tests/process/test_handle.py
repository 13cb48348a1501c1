"""One child process as its parent sees it: started anywhere, its log taken over, its end told."""

import logging
import os
import signal

import pytest

from assetgen.process.handle import Handle, Run
from assetgen.process.messages import LostError

SAYS = (
    "import logging, socket; from assetgen.process import child; parent, level, control, lanes = {arguments}; "
    "child.log_to(socket.socket(fileno=control), level); log = logging.getLogger('assetgen.there'); "
)


def ended(handle):
    handle.end()
    return handle.reap()


def test_it_starts_wherever_it_is_started_and_takes_nothing_from_there(tmp_path, monkeypatch):
    (tmp_path / "assetgen.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    handle = Handle()
    assert ended(handle) == 0


def test_its_log_comes_under_its_names_and_levels(caplog):
    caplog.set_level(logging.INFO)
    handle = Handle(SAYS + "log.info('it is %d', 7); log.debug('unseen'); log.error('x' * 20000)")
    handle.relay_log()
    assert handle.reap() == 0
    told = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert told[0] == ("assetgen.there", "INFO", "it is 7")
    assert [level for _, level, _ in told] == ["INFO", "ERROR"]
    assert len(told[1][2]) == 8192


def test_what_is_no_log_is_passed_over(caplog):
    handle = Handle(
        "import os; parent, level, control, lanes = {arguments}; os.write(control, b'{{}}\\nnot json\\n[]\\n')"
    )
    handle.relay_log()
    assert handle.reap() == 0
    assert not caplog.records


@pytest.mark.parametrize(
    ("program", "status"),
    [("raise SystemExit(3)  # {arguments}", 3), ("import os; os.abort()  # {arguments}", -signal.SIGABRT)],
)
def test_its_end_is_told_as_a_status(program, status):
    assert Handle(program).reap() == status


def test_one_that_says_nonsense_is_lost():
    handle = Handle(
        "import socket; l = ({arguments})[3]; s = socket.socket(fileno=l[2]); s.recv(1 << 16); s.send(b'x' * 80)"
    )
    with pytest.raises(LostError):
        handle.open(1, {}, {})
    assert handle.reap() == 0


def test_one_that_does_not_end_is_ended(monkeypatch):
    monkeypatch.setattr("assetgen.process.handle.END_S", 0.2)
    handle = Handle("import time; time.sleep(600)  # {arguments}")
    handle.stop(Run("a"))
    assert handle.reap() == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(handle.pid, 0)
