"""llama.cpp, built from the source that its Python package on PyPI carries, and its two benchmark programs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
PROGRAMS = ("llama-bench", "llama-batched-bench")
SETTINGS = {
    "CMAKE_BUILD_TYPE": "Release",
    "GGML_NATIVE": "ON",
    "BUILD_SHARED_LIBS": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_BUILD_TOOLS": "ON",
    "LLAMA_CURL": "OFF",
}


def source(work: Path) -> Path:
    """The unpacked source distribution; downloaded with pip if it is not there."""
    folder = work / f"{PACKAGE.replace('-', '_')}-{VERSION}"
    if not folder.is_dir():
        archive = folder.with_name(folder.name + ".tar.gz")
        if not archive.is_file():
            pip = (sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation")
            run([*pip, f"{PACKAGE}=={VERSION}", "--dest", str(work)])
        with tarfile.open(archive) as tar:
            tar.extractall(work, filter="data")
    return folder / "vendor" / "llama.cpp"


def build(work: Path) -> Path:
    """The folder of the programs; built if they are not there (a quarter of an hour on two cores)."""
    programs = work / "build" / "bin"
    if not all((programs / name).is_file() for name in PROGRAMS):
        settings = [f"-D{key}={value}" for key, value in SETTINGS.items()]
        run(["cmake", "-S", str(source(work)), "-B", str(work / "build"), *settings])
        run(["cmake", "--build", str(work / "build"), "--parallel", "--target", *PROGRAMS])
    return programs


def gguf_package(work: Path) -> Path:
    """Where Python finds the `gguf` package of this very version."""
    return source(work) / "gguf-py"


def prefill_and_decode(
    programs: Path, model: Path, *, threads: int, prompts: Sequence[int], tokens: int, rounds: int
) -> dict[str, list[float]]:
    """Tokens a second of every round, by the names that `tusi bench` gives the same measurements."""
    command = [
        str(programs / "llama-bench"), "-m", str(model), "-t", str(threads), "-r", str(rounds), "-o", "json",
        "-p", ",".join(map(str, prompts)) if prompts else "0", "-n", str(tokens),
    ]  # fmt: skip
    found: dict[str, list[float]] = {}
    for test in json.loads(output(command)):
        prompt = int(test["n_prompt"])
        name = f"prefill {prompt} tokens" if prompt else "decode 1 sequence"
        found[name] = [float(rate) for rate in test["samples_ts"]]
    return found


def batched_decode(
    programs: Path, model: Path, *, threads: int, sequences: Sequence[int], tokens: int
) -> dict[str, list[float]]:
    """One round: tokens a second of all sequences together."""
    context = max(sequences) * (16 + tokens) + 64
    command = [
        str(programs / "llama-batched-bench"), "-m", str(model), "-t", str(threads), "-c", str(context),
        "-npp", "16", "-ntg", str(tokens), "-npl", ",".join(map(str, sequences)), "--output-format", "jsonl",
    ]  # fmt: skip
    found: dict[str, list[float]] = {}
    for line in output(command).splitlines():
        if line.startswith("{"):
            test: dict[str, Any] = json.loads(line)
            found[f"decode {test['pl']} sequence{'s' if test['pl'] > 1 else ''}"] = [float(test["speed_tg"])]
    return found


def run(command: Sequence[str]) -> None:
    """Run a command; its failure ends the benchmark."""
    if shutil.which(command[0]) is None:
        raise SystemExit(f"{command[0]} is not installed; the peer cannot be built without it.")
    subprocess.run(command, check=True)


def output(command: Sequence[str]) -> str:
    """Standard output of a command."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout
