"""Tusi and llama.cpp on the same shape, by turns in one run: medians, spread, and the memory bandwidth beside them.

    python benchmarks/peers/compare.py --work FOLDER [--shape small|28b] [--turns 3] [--json]

Builds llama.cpp in FOLDER if it is not there, and writes its random model there (12.4 GB for the 28 B shape's text
half, which is all of it that llama.cpp runs; deleted afterwards unless --keep). A turn is a process of each, one after
the other: they take turns because the host's bandwidth changes within seconds. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import llama_cpp

from tusi import kernels
from tusi.bench.ceilings import read_bandwidth

Rates = dict[str, list[float]]


def tusi_turn(options: argparse.Namespace) -> Rates:
    """One process of `tusi bench` with random weights."""
    program = [sys.executable, "-c", "import sys; from tusi.cli.main import main; sys.exit(main())"]
    subject = ["--shape", options.shape, "--format", "wint4", "--context", "2048", "--image", "none"]
    wanted = ["--prompts", options.prompts, "--sequences", options.sequences, "--tokens", str(options.tokens)]
    command = [*program, "bench", *subject, *wanted, "--rounds", "2", "--json"]
    report = json.loads(llama_cpp.output(command))
    return {result["name"]: result["tokens_per_second"]["values"] for result in report["text"]}


def llama_turn(options: argparse.Namespace, programs: Path, model: Path) -> Rates:
    """One process of each of llama.cpp's programs."""
    threads = kernels.num_threads()
    prompts = [int(number) for number in options.prompts.split(",")]
    several = [int(number) for number in options.sequences.split(",") if number != "1"]
    rates = llama_cpp.prefill_and_decode(
        programs, model, threads=threads, prompts=prompts, tokens=options.tokens, rounds=2
    )
    if several:
        rates |= llama_cpp.batched_decode(programs, model, threads=threads, sequences=several, tokens=options.tokens)
    return rates


def write_model(work: Path, shape: str) -> Path:
    """llama.cpp's model of the shape; written if it is not there."""
    path = work / f"random-{shape}-q4_0.gguf"
    if not path.is_file():
        partial = path.with_suffix(".partial")
        search = os.pathsep.join([str(llama_cpp.gguf_package(work)), *sys.path])
        maker = Path(__file__).with_name("make_gguf.py")
        command = [sys.executable, str(maker), str(partial), shape]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": search})
        partial.rename(path)
    return path


def summary(turns: list[tuple[Rates, Rates, float]]) -> dict[str, Any]:
    """Medians and spread over all turns, and how many times as fast Tusi is."""
    found: dict[str, Any] = {"bandwidth_gb_per_second": [round(rate, 1) for _, _, rate in turns], "figures": {}}
    for name in turns[0][0]:
        ours = [rate for tusi, _, _ in turns for rate in tusi.get(name, [])]
        theirs = [rate for _, llama, _ in turns for rate in llama.get(name, [])]
        if ours and theirs:
            found["figures"][name] = {
                "tusi": [statistics.median(ours), min(ours), max(ours)],
                "llama.cpp": [statistics.median(theirs), min(theirs), max(theirs)],
                "ratio": statistics.median(ours) / statistics.median(theirs),
            }
    return found


def show(found: dict[str, Any]) -> None:
    """A Markdown table."""
    print("| | Tusi wint4, tok/s | llama.cpp Q4_0, tok/s | ratio |\n|---|---|---|---|")
    for name, figure in found["figures"].items():
        cells = ["{:.1f} ({:.1f}-{:.1f})".format(*figure[side]) for side in ("tusi", "llama.cpp")]
        print(f"| {name} | {cells[0]} | {cells[1]} | {figure['ratio']:.2f} |")
    print(f"\nread bandwidth between the turns, GB/s: {', '.join(map(str, found['bandwidth_gb_per_second']))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the peer's source, build and model")
    parser.add_argument("--shape", choices=("small", "28b-half", "28b"), default="small")
    parser.add_argument("--prompts", default="512")
    parser.add_argument("--sequences", default="1,8,16")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--prepare", action="store_true", help="build and write the model, measure nothing")
    parser.add_argument("--keep", action="store_true", help="keep the model's file")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    programs = llama_cpp.build(options.work)
    model = write_model(options.work, options.shape)
    if options.prepare:
        return
    turns = []
    for _ in range(options.turns):
        ours = tusi_turn(options)
        bandwidth = read_bandwidth()
        turns.append((ours, llama_turn(options, programs, model), bandwidth))
    found = summary(turns)
    if options.json:
        print(json.dumps({"shape": options.shape, "isa": kernels.isa(), **found}, indent=2))
    else:
        show(found)
    if not options.keep:
        model.unlink()


if __name__ == "__main__":
    main()
