from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = """
from tusi.bench import ceilings
from tusi.core import machine

ceilings.READ_BYTES, ceilings.READ_ROUNDS = 2**28, 1
assert ceilings.read_bandwidth() > 0
print(machine.process_memory().peak)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot forget a peak")
def test_a_look_at_the_bandwidth_does_not_count_as_memory_of_the_model() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2**28
