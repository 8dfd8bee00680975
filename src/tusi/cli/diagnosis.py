"""Looks at the installation and the machine for `tusi doctor`. Out: findings, each with what to do about it.

Imports nothing of Tusi that may be broken but inside a check, so that it can report what is.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tusi.cli.console import size_text
from tusi.core import env, machine
from tusi.core.errors import TusiError

Level = Literal["ok", "note", "broken"]

# Distribution, module, oldest version that works. tests/cli/test_diagnosis.py holds it equal to pyproject.toml.
REQUIREMENTS: tuple[tuple[str, str, str], ...] = (
    ("av", "av", "17.1"),
    ("fastapi", "fastapi", "0.115"),
    ("filelock", "filelock", "3.12"),
    ("httpx", "httpx", "0.27"),
    ("huggingface-hub", "huggingface_hub", "0.34"),
    ("jinja2", "jinja2", "3.1.6"),
    ("llguidance", "llguidance", "1.2"),
    ("numpy", "numpy", "1.26"),
    ("pillow", "PIL", "11.3"),
    ("prometheus-client", "prometheus_client", "0.21"),
    ("pydantic", "pydantic", "2.10"),
    ("rich", "rich", "13"),
    ("safetensors", "safetensors", "0.5"),
    ("sentencepiece", "sentencepiece", "0.2"),
    ("tokenizers", "tokenizers", "0.21"),
    ("typer", "typer", "0.15"),
    ("uvicorn", "uvicorn", "0.34"),
)
LOW_DISK_BYTES = 80 * 10**9
LOW_MEMORY_BYTES = 185 * 10**8


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report. note: works, but could be better; broken: Tusi cannot do its work.

    advice: what to do about it, where the value does not say so itself.
    """

    section: str
    name: str
    value: str
    level: Level = "ok"
    advice: str = ""


def diagnose() -> list[Finding]:
    """Every finding, section by section. Takes about a second for the bandwidth."""
    return [*_processor(), *_memory(), *_kernels(), *_disk(), *_packages(), *_environment()]


def _processor() -> Iterator[Finding]:
    cpu = machine.processor()
    yield Finding(section="processor", name="model", value=f"{cpu.model} ({cpu.architecture})")
    yield Finding(section="processor", name="features", value=" ".join(cpu.features) or "none that kernels use")
    yield Finding(section="processor", name="cores", value=f"{cpu.logical_cores} usable by this process")


def _memory() -> Iterator[Finding]:
    seen = machine.memory()
    total, available = (size_text(value) if value is not None else "unknown" for value in (seen.total, seen.available))
    limit = f", limited to {size_text(seen.limit)} by its container" if seen.limit is not None else ""
    small = seen.available is not None and seen.available < LOW_MEMORY_BYTES
    yield Finding(
        section="memory",
        name="memory",
        value=f"{available} free of {total}{limit}",
        level="note" if small else "ok",
        advice="the 28 B model needs about 18.5 GB in int4; see `tusi fit`" if small else "",
    )
    policy = machine.huge_pages()
    yield Finding(
        section="memory",
        name="huge pages",
        value=policy or "unknown",
        level="note" if policy == "never" else "ok",
        advice="`echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled` may speed weights up"
        if policy == "never"
        else "",
    )


def _kernels() -> Iterator[Finding]:
    try:
        kernels = importlib.import_module("tusi.kernels")
        native = importlib.import_module("tusi.kernels._native")
        yield Finding(section="kernels", name="native extension", value=str(native.__file__))
        isas = ", ".join(kernels.supported_isas())
        yield Finding(section="kernels", name="instruction set", value=f"{kernels.isa()} (this machine can: {isas})")
        yield Finding(section="kernels", name="threads", value=str(kernels.num_threads()))
        bandwidth = importlib.import_module("tusi.bench.ceilings").read_bandwidth()
        yield Finding(section="kernels", name="memory bandwidth", value=f"{bandwidth:.1f} GB/s read, measured")
    except (ImportError, MemoryError, TusiError) as error:
        # Each of these says itself what to do: build it, or correct TUSI_ISA.
        yield Finding(section="kernels", name="native extension", value=str(error), level="broken")


def _disk() -> Iterator[Finding]:
    try:
        folder = Path(env.TUSI_CACHE.get() or "~/.cache/tusi").expanduser()
    except TusiError as error:
        yield Finding(section="disk", name="cache", value=str(error), level="broken")
        return
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    low = free < LOW_DISK_BYTES
    yield Finding(
        section="disk",
        name="cache",
        value=f"{size_text(free)} free at {folder}",
        level="note" if low else "ok",
        advice="the 28 B model is a download of 59 GB; TUSI_CACHE chooses another disk" if low else "",
    )


def _packages() -> Iterator[Finding]:
    oldest = (3, 11)
    python_ok = sys.version_info[:2] >= oldest
    yield Finding(
        section="packages",
        name="python",
        value=f"{platform.python_version()} ({sys.executable})",
        level="ok" if python_ok else "broken",
        advice="" if python_ok else "Tusi needs Python 3.11 or later",
    )
    yield Finding(section="packages", name="tusi", value=_version_of("tusi") or "from a source tree, not installed")
    for distribution, module, minimum in REQUIREMENTS:
        yield _package(distribution, module, minimum)


def _package(distribution: str, module: str, minimum: str) -> Finding:
    advice = f"pip install '{distribution}>={minimum}'"
    version = _version_of(distribution)
    if version is None:
        return Finding(section="packages", name=distribution, value="missing", level="broken", advice=advice)
    if _numbers(version) < _numbers(minimum):
        value = f"{version}, older than {minimum}"
        return Finding(section="packages", name=distribution, value=value, level="broken", advice=advice)
    try:
        importlib.import_module(module)
    except ImportError as error:
        value = f"{version}, but cannot be imported: {error}"
        return Finding(
            section="packages", name=distribution, value=value, level="broken", advice=f"{advice} --force-reinstall"
        )
    return Finding(section="packages", name=distribution, value=version)


def _environment() -> Iterator[Finding]:
    for variable in env.VARIABLES:
        yield _variable(variable.name, variable.source, variable.get, variable.help)


def _variable(name: str, source: Callable[[], str], get: Callable[[], object], explanation: str) -> Finding:
    try:
        value = get()
    except TusiError as error:
        return Finding(section="environment", name=name, value=str(error), level="broken")
    shown = "set, not shown" if name in ("HF_TOKEN", "TUSI_API_KEY") and value else "-" if value is None else str(value)
    return Finding(section="environment", name=name, value=f"{shown} (from {source()}): {explanation}")


def _version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """Leading numbers of a version, trailing zeros dropped, so that 1.26 equals 1.26.0."""
    numbers = [int(number) for number in re.findall(r"\d+", re.match(r"[\d.]*", version)[0])]  # type: ignore[index]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
