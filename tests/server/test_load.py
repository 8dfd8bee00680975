"""benchmarks/server_load.py for ten seconds: nothing is lost, leaked, or answered with an error that is not a 429."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "server_load.py"


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--replicas", "2")], ids=["one process", "replicas"])
def test_many_clients_of_whom_many_leave(options: tuple[str, ...]) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([*sys.path, str(SCRIPT.parent)]),
        "TUSI_NUM_THREADS": "2",
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--seconds", "10", *options],
        env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "still held: nothing" in done.stdout
