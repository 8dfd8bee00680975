from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

from tusi.bench import ceilings
from tusi.cli import diagnosis
from tusi.cli.diagnosis import REQUIREMENTS, Finding, diagnose
from tusi.core import machine

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "READ_ROUNDS", 2)
    monkeypatch.setattr(ceilings, "READ_BYTES", 2**20)


def find(name: str) -> Finding:
    return next(finding for finding in diagnose() if finding.name == name)


def test_the_requirements_are_those_of_the_package() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    pairs = {tuple(re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups()) for line in declared}  # type: ignore[union-attr]
    assert pairs == {(distribution, minimum) for distribution, _, minimum in REQUIREMENTS}


def test_every_section_is_there_and_nothing_is_broken_here() -> None:
    findings = diagnose()
    sections = list(dict.fromkeys(finding.section for finding in findings))
    assert sections == ["processor", "memory", "kernels", "disk", "packages", "environment"]
    assert [finding for finding in findings if finding.level == "broken"] == []


def test_the_bandwidth_is_measured() -> None:
    assert float(find("memory bandwidth").value.split()[0]) > 0.1


def test_a_missing_package_is_broken_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "REQUIREMENTS", (("no-such-package", "nothing", "1.2"),))
    finding = find("no-such-package")
    assert (finding.value, finding.level) == ("missing", "broken")
    assert finding.advice == "pip install 'no-such-package>=1.2'"


def test_a_package_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.25.9" if name == "numpy" else "99")
    finding = find("numpy")
    assert (finding.value, finding.level) == ("1.25.9, older than 1.26", "broken")


def test_a_package_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "REQUIREMENTS", (("numpy", "no_such_module", "1.26"),))
    finding = find("numpy")
    assert finding.level == "broken"
    assert "cannot be imported" in finding.value


@pytest.mark.parametrize(
    ("version", "minimum", "is_new_enough"),
    [
        ("3.1.6", "3.1.6", True),
        ("3.1.10", "3.1.6", True),
        ("3.1", "3.1.6", False),
        ("14.0", "14", True),
        ("2rc1", "2", True),
    ],
)
def test_versions(version: str, minimum: str, is_new_enough: bool) -> None:
    assert (diagnosis._numbers(version) >= diagnosis._numbers(minimum)) == is_new_enough


def test_a_missing_extension_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    real = diagnosis.importlib.import_module

    def without_kernels(name: str) -> object:
        if name.startswith("tusi.kernels"):
            raise ImportError("no _native here. Run scripts/build.")
        return real(name)

    monkeypatch.setattr(diagnosis.importlib, "import_module", without_kernels)
    finding = find("native extension")
    assert (finding.level, finding.value) == ("broken", "no _native here. Run scripts/build.")


def test_the_environment_says_where_each_value_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSI_MODEL", "acme/tiny")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("TUSI_API_KEY", "key_secret")
    assert find("TUSI_MODEL").value.startswith("acme/tiny (from environment)")
    assert find("HF_ENDPOINT").value.startswith("https://huggingface.co (from default)")
    assert all("_secret" not in finding.value for finding in diagnose())


def test_a_bad_variable_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUSI_NUM_THREADS", "many")
    finding = find("TUSI_NUM_THREADS")
    assert finding.level == "broken"
    assert "Correct it or unset it" in finding.value


def test_little_memory_and_disk_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    small = machine.Memory(total=8 * 10**9, available=4 * 10**9, limit=5 * 10**9)
    monkeypatch.setattr(machine, "memory", lambda: small)
    monkeypatch.setattr(diagnosis, "LOW_DISK_BYTES", 10**18)
    assert find("memory").level == "note"
    assert "4.00 GB free of 8.00 GB, limited to 5.00 GB by its container" in find("memory").value
    assert "59 GB" in find("cache").advice
