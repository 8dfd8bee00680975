"""Tusi and vLLM on the CPU, on the small shape, by turns in one run: medians, spread, ratio, and start-up of each.

    python benchmarks/peers/vllm_cpu.py --vllm-python PATH/bin/python [--dtype int4] [--rounds 5] [--json]

vLLM runs the text half of the shape (architecture ernie4_5_moe, random weights, bfloat16) from an environment of its
own; docs/benchmarks.md says how to make it. Both engines are started once and stay loaded; then they take turns, a
round each, with the same prompts and numbers of tokens, each idle while the other works. Start-up is from the start of
the process to the moment it could be asked; the first round of each is not counted. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tusi import kernels
from tusi.models.random_checkpoint import tiny_config, write_random_checkpoint
from tusi.models.shapes import SMALL_TEXT

# After its turn an engine's threads may spin for a while before they sleep.
SETTLE_SECONDS = 0.5
WORKER = Path(__file__).with_name("continue_prompts.py")


class Engine:
    """A process of `continue_prompts`. What it prints besides goes to a file in `work`."""

    def __init__(self, name: str, python: str, folder: Path, *, dtype: str, max_sequences: int, work: Path) -> None:
        self.name = name
        self._log = work / f"{name}.log"
        # vLLM's threads, one a core: left to itself it may keep one core back for serving.
        bind = {"VLLM_CPU_OMP_THREADS_BIND": f"0-{kernels.num_threads() - 1}"} if name == "vllm" else {}
        begin = time.perf_counter()
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [python, str(WORKER), name, str(folder), dtype, str(max_sequences)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **bind},
            )
        self.load_seconds = float(self._answer()["load_seconds"])
        self.start_seconds = time.perf_counter() - begin

    def rate(self, *, sequences: int, tokens: int, round_number: int) -> float:
        """Tokens a second of one round."""
        assert self._process.stdin is not None
        asked = {"sequences": sequences, "tokens": tokens, "round": round_number}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        rate = float(self._answer()["tokens_per_second"])
        time.sleep(SETTLE_SECONDS)
        return rate

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=60)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            end = self._log.read_text(errors="replace")[-2000:]
            raise SystemExit(f"{self.name} ended with {self._process.wait()}:\n{end}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def write_vllm_config(folder: Path) -> Path:
    """The small shape's text half as vLLM's ernie4_5_moe reads it. vLLM makes the weights up."""
    text = SMALL_TEXT
    config = {
        "architectures": ["Ernie4_5_MoeForCausalLM"],
        "model_type": "ernie4_5_moe",
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_hidden_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        "num_key_value_heads": text.num_key_value_heads,
        "head_dim": text.head_dim,
        "max_position_embeddings": text.max_position_embeddings,
        "rms_norm_eps": text.rms_norm_eps,
        "rope_theta": 500000.0,
        "use_bias": False,
        "tie_word_embeddings": False,
        "moe_num_experts": text.moe_num_experts,
        "moe_k": text.moe_k,
        "moe_intermediate_size": text.moe_intermediate_size[0],
        "moe_num_shared_experts": text.moe_num_shared_experts,
        "moe_layer_start_index": 0,
        "moe_layer_end_index": text.num_hidden_layers - 1,
        "moe_layer_interval": 1,
        "moe_use_aux_free": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def measure(engines: list[Engine], sequences: int, *, tokens: int, rounds: int) -> dict[str, list[float]]:
    """The rates of every round but the first, which warms up."""
    rates: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for number in range(rounds + 1):
        for engine in engines:
            rate = engine.rate(sequences=sequences, tokens=tokens, round_number=number)
            if number:
                rates[engine.name].append(rate)
    return rates


def compare(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Start both, take turns, sum up."""
    checkpoint = write_random_checkpoint(work / "tusi", config=tiny_config(text=SMALL_TEXT))
    most = max(options.sequences)
    ours = Engine("tusi", sys.executable, checkpoint, dtype=options.dtype, max_sequences=most, work=work)
    theirs = Engine(
        "vllm", options.vllm_python, write_vllm_config(work / "vllm"), dtype="bfloat16", max_sequences=most, work=work
    )
    figures = {}
    try:
        for sequences in options.sequences:
            rates = measure([ours, theirs], sequences, tokens=options.tokens, rounds=options.rounds)
            middle = {name: statistics.median(values) for name, values in rates.items()}
            figures[str(sequences)] = {**rates, "ratio": middle["tusi"] / middle["vllm"]}
    finally:
        ours.close()
        theirs.close()
    starts = {engine.name: {"start": engine.start_seconds, "load": engine.load_seconds} for engine in (ours, theirs)}
    return {"dtype": options.dtype, "isa": kernels.isa(), "start_seconds": starts, "tokens_per_second": figures}


def show(found: dict[str, Any]) -> None:
    """A Markdown table."""
    print(f"| sequences | Tusi {found['dtype']}, tok/s | vLLM bf16, tok/s | ratio |\n|---|---|---|---|")
    for sequences, figure in found["tokens_per_second"].items():
        cells = [
            f"{statistics.median(figure[name]):.0f} ({min(figure[name]):.0f}-{max(figure[name]):.0f})"
            for name in ("tusi", "vllm")
        ]
        print(f"| {sequences} | {cells[0]} | {cells[1]} | {figure['ratio']:.2f} |")
    for name, seconds in found["start_seconds"].items():
        print(
            f"\n{name}: ready {seconds['start']:.2f} s after the process began ({seconds['load']:.2f} s of it in LLM)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm-python", required=True, help="the interpreter of vLLM's environment")
    parser.add_argument("--dtype", default="int4", choices=("fp32", "bf16", "int8", "int4"))
    parser.add_argument("--sequences", type=int, nargs="*", default=[1, 8, 16])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tusi-vllm-") as work:
        found = compare(options, Path(work))
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()
