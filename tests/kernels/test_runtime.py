from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.kernels.helpers import normal
from tusi import kernels
from tusi.kernels import runtime


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
    )


def test_the_active_isa_is_the_best_supported_one_unless_forced() -> None:
    code = "from tusi import kernels; print(kernels.isa(), kernels.num_threads())"
    forced = run_python(code, TUSI_ISA="generic", TUSI_NUM_THREADS="3")
    assert forced.stdout.split() == ["generic", "3"], forced.stderr
    best = run_python(code, TUSI_ISA="", TUSI_NUM_THREADS="")
    assert best.stdout.split() == [kernels.supported_isas()[-1], str(runtime.physical_cores())], best.stderr


@pytest.mark.parametrize("value", ["sse", "AVX2"])
def test_an_unknown_isa_in_the_environment_is_an_error(value: str) -> None:
    result = run_python("import tusi.kernels", TUSI_ISA=value)
    assert "ConfigError" in result.stderr
    assert "must be one of generic, avx2, avx512" in result.stderr


def test_an_isa_that_the_processor_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSI_ISA", "avx512")
    monkeypatch.setattr(runtime, "supported_isas", lambda: ["generic", "avx2"])
    with pytest.raises(runtime.ConfigError, match=r"TUSI_ISA=avx512 was asked for.*It has generic, avx2. Unset"):
        runtime.configure()


def test_an_unbuilt_checkout_says_how_to_build() -> None:
    result = run_python("import sys; sys.modules['tusi.kernels._native'] = None; import tusi.kernels")
    assert "BackendUnavailable" in result.stderr
    assert "run `scripts/build`" in result.stderr


def test_features_and_supported_isas_agree() -> None:
    features = kernels.cpu_features()
    assert all(isinstance(value, bool) for value in features.values())
    assert kernels.supported_isas()[0] == "generic"
    assert ("avx2" in kernels.supported_isas()) == all(features[n] for n in ("avx2", "fma", "os_saves_ymm"))
    if "avx512" in kernels.supported_isas():
        assert features["avx512f"]
        assert features["os_saves_zmm"]


def test_thread_count_can_be_changed_within_bounds() -> None:
    before = kernels.num_threads()
    try:
        kernels.set_num_threads(4)
        assert kernels.num_threads() == 4
    finally:
        kernels.set_num_threads(before)
    for count in (0, -1, 1025):
        with pytest.raises(ValueError, match=f"n is {count}; expected 1 to 1024"):
            kernels.set_num_threads(count)


def test_hardware_threads_of_one_core_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n", encoding="ascii")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert runtime.physical_cores(tmp_path) == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert runtime.physical_cores(tmp_path) == 2
    assert runtime.physical_cores(tmp_path / "hidden") == 3


@pytest.mark.parametrize("isa", kernels.supported_isas())
def test_ceilings_are_plausible(isa: str) -> None:
    rates = kernels.read_bandwidths(1 << 24, 3, isa=isa)
    assert len(rates) == 3
    assert all(0.05 < rate < 10_000 for rate in rates)
    peaks = kernels.unit_peaks("fp32", 2, 0.001, isa=isa)
    assert len(peaks) == 2
    assert all(0.05 < rate < 100_000 for rate in peaks)
    assert len(kernels.unit_peaks("bf16", 1, 0.001, isa="generic")) == 0


def test_arguments_of_ceilings_are_checked() -> None:
    with pytest.raises(ValueError, match="n_bytes is 0"):
        kernels.read_bandwidths(0, 1)
    with pytest.raises(ValueError, match="expected 1 or more"):
        kernels.read_bandwidths(1 << 20, 0)
    with pytest.raises(ValueError, match="expected 1 or more, and 0 to 60"):
        kernels.unit_peaks("fp32", 1, -1.0)
    with pytest.raises(ValueError, match="expected int8, bf16 or fp32"):
        kernels.unit_peaks("fp8", 1, 0.1)  # type: ignore[arg-type]
    with pytest.raises(MemoryError):
        kernels.read_bandwidths(1 << 60, 1)


def test_many_python_threads_may_call_at_once() -> None:
    x, weight = normal(32, 256), normal(192, 256)
    expected = kernels.gemm_f32(x, weight)
    wrong: list[int] = []

    def work(who: int) -> None:
        for _ in range(50):
            if not np.array_equal(kernels.gemm_f32(x, weight), expected):
                wrong.append(who)

    before = kernels.num_threads()
    kernels.set_num_threads(3)
    try:
        workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for worker in workers:
            worker.start()
        for _ in range(10):  # the pool may be changed meanwhile
            kernels.set_num_threads(2)
            kernels.set_num_threads(4)
        for worker in workers:
            worker.join()
    finally:
        kernels.set_num_threads(before)
    assert not wrong


FORK = """
import os, numpy as np
from tusi import kernels
kernels.set_num_threads(3)
x, w = np.ones((64, 256), np.float32), np.ones((192, 256), np.float32)
kernels.gemm_f32(x, w)
child = os.fork()
ok = bool((kernels.gemm_f32(x, w) == 256).all()) and kernels.num_threads() == 3
if child == 0:
    os._exit(0 if ok else 1)
_, status = os.waitpid(child, 0)
print(ok, os.waitstatus_to_exitcode(status))
"""

EXIT = """
import threading, numpy as np
from tusi import kernels
kernels.set_num_threads(3)
x, w = np.ones((64, 256), np.float32), np.ones((192, 256), np.float32)
def forever():
    while True:
        kernels.gemm_f32(x, w)
threading.Thread(target=forever, daemon=True).start()
kernels.gemm_f32(x, w)
print("done")
"""


def test_a_forked_child_starts_its_own_threads() -> None:
    result = run_python(FORK)
    assert result.stdout.split() == ["True", "0"], result.stderr


def test_the_interpreter_may_exit_while_kernels_run() -> None:
    for _ in range(3):
        result = run_python(EXIT)
        assert (result.returncode, result.stdout.strip()) == (0, "done"), result.stderr
