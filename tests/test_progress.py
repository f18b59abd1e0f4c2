"""Bars: nothing but a line now and then where there is no terminal."""

import os
import pty
import subprocess
import sys

import pytest

from mrisem import progress

LOOP = """
import sys, time
from mrisem.progress import progress, track
print("before")
with progress("scans [1, 2]", 4, "slices") as bar:
    for number in range(2):
        bar.ahead = 2
        for _ in track(range(300), f"fit {number}", "steps"):
            time.sleep(0.002)
        print("said", number)
        bar.advance(2)
print("after")
"""


class Clock:
    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_log_gets_a_line_a_minute(capsys, clock):
    with progress.progress("scans", 4, "slices") as bar:
        for _ in range(2):
            bar.ahead = 2
            for _ in progress.track(range(800), "fit", "steps"):
                clock.now += 0.125
            bar.advance(2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3  # 200 s
    assert lines[0] == "mrisem: scans 0 of 4 slices 2:20 min left; fit 480 of 800 steps 40 s left"
    assert lines[1].startswith("mrisem: scans 2 of 4 slices 1:20 min left; fit 160 of 800")


def test_short_loops_write_nothing(capsys):
    for _ in progress.track(range(50), "fit"):
        pass
    for _ in progress.track([], "nothing"):
        pass
    assert capsys.readouterr().err == ""


def test_the_time_left_counts_from_what_was_done_before(clock):
    bar = progress.Bar("bank", 100, "slices", done=50)
    clock.now = 30.0
    assert bar.left() == ""
    bar.advance(10)
    assert bar.left() == "2:00 min left"
    bar.advance(40)
    assert bar.left() == "30 s"


def test_an_error_leaves_no_bar(capsys):
    loop = progress.track(range(3), "fit")
    next(loop)
    progress.close_all()
    assert progress._DISPLAY.bars == []
    next(loop)


def in_terminal(code):
    """Run code in a terminal of its own and return what arrives there."""
    parent, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "90"}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=child, stderr=child, env=environment
    ):
        os.close(child)
        content = b""
        while True:
            try:
                part = os.read(parent, 4096)
            except OSError:  # Linux says so at the end
                break
            if not part:
                break
            content += part
    os.close(parent)
    return content.decode()


def test_a_terminal_gets_bars_and_what_is_printed_above_them():
    shown = in_terminal(LOOP)
    assert "scans [1, 2]" in shown
    assert "fit 1" in shown
    assert "4 of 4 slices" in shown
    for line in ("before", "said 0", "said 1", "after"):
        assert line in shown


def test_a_pipe_gets_what_is_printed_alone():
    done = subprocess.run([sys.executable, "-c", LOOP], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["before", "said 0", "said 1", "after", ""]
    assert done.stderr == ""
