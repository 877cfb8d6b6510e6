"""Memory of a process is its own, not that of the one that started it."""

import subprocess
import sys

import numpy as np
import pytest

from statprune.engine.resident import peak_resident, resident

MORE = 600 * 2**20

CHILD = """
import numpy
from statprune.engine.resident import peak_resident, resident
before = peak_resident()
held = numpy.ones(200 * 2**20, dtype=numpy.uint8)
largest, now = peak_resident(), resident()
del held
print(before, largest, now, resident(), peak_resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what other systems count is not known here")
def test_a_large_process_adds_nothing_to_what_a_small_one_counts() -> None:
    held = np.ones(MORE, dtype=np.uint8)
    mine = resident()
    assert mine is not None
    assert mine > len(held)
    ended = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    before, largest, now, after, most = map(int, ended.stdout.split())
    assert before < mine - MORE // 4
    assert 190 * 2**20 < largest - before < 230 * 2**20
    assert now > largest - 20 * 2**20
    assert after < now - 190 * 2**20
    assert abs(most - largest) < 2**21  # the kernel counts in steps
    peak = peak_resident()
    assert peak is not None
    assert peak >= mine
