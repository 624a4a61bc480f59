"""A pi-limit killed with SIGKILL at logged moments resumes to the same end, bit by bit."""

import random
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from widthwise.run import Run

CHILD = """
import sys
import widthwise as ww
from widthwise import store
from widthwise.limits.pi import compress, limit

def told(name, call):
    def wrapped(*given, **named):
        print(name, flush=True)
        return call(*given, **named)
    return wrapped

limit.SECONDS = 0.2
store.save = told("save", store.save)
compress.compress = told("compress", compress.compress)
net = ww.Dense() >> ww.Relu() >> ww.Dense() >> ww.Relu() >> ww.Readout()
learner = ww.GradientDescent(
    lr=0.5, steps=250, batch_size=16, momentum=0.5,
    projection=ww.Projection(24, rows=400),
)
member = ww.Member(net, ww.inf, ww.MuP(), learner)
run = member.train(ww.data.load("digits"), logs=3, checkpoint=sys.argv[1])
run.save(sys.argv[2])
"""
MOMENTS = ("compress", "save", "compress", "later", "later")


@pytest.mark.slow
def test_sigkill(tmp_path, capsys):
    generator = random.Random(0)

    def start(name: str) -> tuple[Any, str]:
        files = [str(tmp_path / f"{name}.{end}") for end in ("part", "run")]
        command = [sys.executable, "-c", CHILD, *files]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True), files[1]

    child, whole = start("whole")
    marks = child.communicate()[0].split()
    assert child.returncode == 0 and marks.count("compress") > 6
    for moment in MOMENTS:
        child, _ = start("killed")
        if moment == "later":
            wanted = generator.randint(3, 12)
            for _ in range(wanted):
                child.stdout.readline()
        else:
            wanted, seen = generator.randint(1, 4), 0
            while seen < wanted:
                line = child.stdout.readline()
                assert line, "it ended before it could be killed"
                seen += line.strip() == moment
        pause = generator.uniform(0, 0.02)
        time.sleep(pause)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        with capsys.disabled():
            print(f"killed {pause * 1e3:.0f} ms after mark {wanted} of {moment!r}")
    child, resumed = start("killed")
    left = child.communicate()[0].split()
    assert child.returncode == 0 and left.count("compress") < marks.count("compress"), (
        "it began again"
    )
    first, second = Run.load(whole), Run.load(resumed)
    for name in ("steps", "train_loss", "test_loss", "predictions"):
        expected = getattr(first.trajectory, name)
        np.testing.assert_array_equal(getattr(second.trajectory, name), expected)
    x = np.linspace(-1, 1, 64 * 7).reshape(7, 64)
    np.testing.assert_array_equal(second.predict(x).value, first.predict(x).value)
