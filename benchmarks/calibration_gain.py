"""What `tusi quantize --calibration` wins on tusi-mini: drift from the unquantised model, with samples and without.

    python benchmarks/calibration_gain.py FOLDER [--model tusi-mini] [--samples 20] [--format wint4] [--eval-samples 40]

Writes FOLDER/calibration.jsonl (the procedural world's `train` split, as `--trace` would), quantises the model into
FOLDER/plain and FOLDER/calibrated by the command line, and compares both with the model on the `eval` split, which
shares no picture, name or number with it (`tusi drift`). Takes a minute.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from tusi.agent.trace import write_traces
from tusi.agent.types import AgentLimits, Trace
from tusi.evals.world import world_tasks

PROGRAM = [sys.executable, "-c", "import sys; from tusi.cli.main import main; sys.exit(main())"]


def write_samples(path: Path, samples: int) -> int:
    traces = []
    for task in world_tasks(split="train", samples=samples):
        for sample in (task[index] for index in range(len(task))):
            messages, tools = task.prompt(sample)
            traces.append(
                Trace(
                    model="expert",
                    messages=(*messages, *sample.trace),
                    num_prompt_messages=len(messages),
                    turns=(),
                    tools=tuple(tools),
                    limits=AgentLimits(),
                    budget_spent=None,
                )
            )
    traces = traces[::samples] + [
        trace for number, trace in enumerate(traces) if number % samples
    ]  # all families first
    with path.open("w", encoding="utf-8") as file:
        write_traces(traces, file)
    return len(traces)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="tusi-mini")
    parser.add_argument("--samples", type=int, default=20, help="a family, to calibrate on")
    parser.add_argument("--format", choices=("wint4", "wint8"), default="wint4")
    parser.add_argument("--eval-samples", type=int, default=40, help="a family, to compare on")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "calibration.jsonl"
    count = write_samples(file, options.samples)
    print("| weights | tokens | same top token, % | mean KL | 99 % below | log p of the expert, before | after |")
    print("|---|---|---|---|---|---|---|")
    for name, more in (("plain", ()), ("calibrated", ("--calibration", file, "--calibration-samples", count))):
        out = options.folder / name
        quantize = ["quantize", options.model, out, "--format", options.format, *more]
        subprocess.run([*PROGRAM, *map(str, quantize)], check=True, stdout=subprocess.DEVNULL)
        drift = ["drift", options.model, out, "--samples", options.eval_samples, "--json"]
        done = subprocess.run([*PROGRAM, *map(str, drift)], check=True, capture_output=True, text=True)
        cell = json.loads(done.stdout)["all"]
        print(
            f"| {options.format} {name} | {cell['tokens']} | {100 * cell['agreement']:.2f} | {cell['kl']:.6f} | "
            f"{cell['kl_p99']:.4f} | {cell['logprob']:.5f} | {cell['other_logprob']:.5f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
