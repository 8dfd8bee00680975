from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tusi.core import machine

CPUINFO = """processor\t: 0
model name\t: Made-up CPU 9000
flags\t\t: fpu sse avx2 fma f16c avx512f avx512_bf16

processor\t: 1
model name\t: another
"""
MEMINFO = "MemTotal:       16000 kB\nMemFree:  1 kB\nMemAvailable:    9000 kB\nHugePages_Total:       0\n"
KB = 1024


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of our own: 16 MB, 9 of them free, no limit."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "cpuinfo").write_text(CPUINFO)
    (tmp_path / "proc" / "meminfo").write_text(MEMINFO)
    (tmp_path / "cgroup" / "memory").mkdir(parents=True)
    monkeypatch.setattr(machine, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_HUGE_PAGES", tmp_path / "huge")
    monkeypatch.setattr(machine, "_earlier_peak", 0)
    return tmp_path


def test_processor(proc: Path) -> None:
    cpu = machine.processor()
    assert cpu.model == "Made-up CPU 9000"
    assert cpu.features == ("avx2", "fma", "f16c", "avx512f", "avx512-bf16")
    assert cpu.logical_cores >= 1


def test_memory_without_a_limit(proc: Path) -> None:
    assert machine.memory() == machine.Memory(total=16000 * KB, available=9000 * KB, limit=None)


def test_a_container_limit_bounds_what_is_available(proc: Path) -> None:
    (proc / "proc" / "self" / "cgroup").write_text("0::/pod/app\n")
    app = proc / "cgroup" / "pod" / "app"
    app.mkdir(parents=True)
    (app / "memory.max").write_text("max\n")
    (app.parent / "memory.max").write_text(f"{8000 * KB}\n")
    (app.parent / "memory.current").write_text(f"{6000 * KB}\n")
    (app.parent / "memory.stat").write_text(f"anon 1\ninactive_file {1000 * KB}\n")
    seen = machine.memory()
    assert seen.limit == 8000 * KB
    assert seen.available == 3000 * KB  # 8000 - (6000 - 1000 of page cache)


def test_version_1_control_groups_too(proc: Path) -> None:
    (proc / "proc" / "self" / "cgroup").write_text("4:memory:/job\n0::/\n")
    job = proc / "cgroup" / "memory" / "job"
    job.mkdir()
    (job / "memory.limit_in_bytes").write_text(f"{4000 * KB}\n")
    (job / "memory.usage_in_bytes").write_text(f"{500 * KB}\n")
    assert machine.memory().available == 3500 * KB


def test_a_limit_above_the_machine_is_none(proc: Path) -> None:
    (proc / "cgroup" / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (proc / "proc" / "self" / "cgroup").write_text("4:memory:/\n")
    assert machine.memory().limit is None
    assert machine.memory().available == 9000 * KB


def test_huge_pages(proc: Path) -> None:
    assert machine.huge_pages() is None
    (proc / "huge").write_text("always [madvise] never\n")
    assert machine.huge_pages() == "madvise"


def test_this_machine_can_be_read_as_it_is() -> None:
    assert machine.processor().architecture
    seen = machine.memory()
    if seen.total is not None and seen.available is not None:
        assert 0 < seen.available <= seen.total


def test_memory_of_this_process(proc: Path) -> None:
    (proc / "proc" / "self" / "status").write_text("Name:\tpython\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n")
    assert machine.process_memory() == machine.ProcessMemory(resident=1024 * 1024, peak=2048 * 1024)


PEAKS = """
import json
from tusi.core import machine

peaks = []
for leave_out in (True, False):
    if leave_out:
        with machine.peak_unchanged():
            bytes(bytearray(2**26))
    else:
        bytes(bytearray(2**26))
    peaks.append(machine.process_memory().peak)
print(json.dumps(peaks))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot forget a peak")
def test_what_was_taken_for_a_while_can_be_left_out_of_the_peak() -> None:
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    without, with_it = json.loads(done.stdout)
    assert without < 2**26 < with_it


def test_the_peak_is_told_where_there_is_no_proc(proc: Path) -> None:
    seen = machine.process_memory()
    assert seen.resident is None
    assert seen.peak is None or seen.peak > 2**20
