import os
import signal
import subprocess
import sys
import time

import pytest

from mrisem import signals


@pytest.fixture
def listening():
    """Listen, and put the handlers of the tests back."""
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)
    signals.listen()
    yield
    signals._State.held, signals._State.waiting = False, None
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143), (signal.SIGUSR1, 143)])
def test_a_signal_ends_at_once_between_batches(listening, number, code):
    with pytest.raises(signals.Interrupted, match="SIG") as ended:
        os.kill(os.getpid(), number)
    assert ended.value.exit_code == code


def test_a_signal_waits_for_the_end_of_a_batch(listening, capsys):
    signals.hold()
    os.kill(os.getpid(), signal.SIGTERM)
    assert "SIGTERM: ends after this batch; once more: at once" in capsys.readouterr().err
    with pytest.raises(signals.Interrupted, match="SIGTERM"):
        signals.release()


def test_a_second_signal_ends_a_batch(listening):
    signals.hold()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(signals.Interrupted, match="SIGINT"):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_handler_of_somebody_else_stays(listening):
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signals.listen()
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN


@pytest.mark.parametrize("seconds", [0.5, 2])
def test_a_signal_while_the_program_loads_is_one_line(tmp_path, seconds):
    command = [sys.executable, "-m", "mrisem", "doctor", f"paths.cache={tmp_path}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode in (130, 0), err  # 0: it was faster
    assert "Traceback" not in err
