"""A small shape through the whole runtime: start-up, and tokens a second of 1, 8 and 16 sequences.

    python benchmarks/small_shape.py [--dtype int4] [--tokens 256] [--profile]

Writes a random checkpoint of the shape once (in the temporary folder), loads it with `LLM`, and lets it continue token
prompts greedily without an end, with a KV cache that holds all of them. Figures are medians of the rounds; a round is
`LLM.generate` from call to return.
--profile: cProfile of the engine's thread instead, for one sequence.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import tempfile
import time
from pathlib import Path

from tusi import kernels
from tusi.backends.llm import LLM
from tusi.backends.local.engine_thread import EngineThread
from tusi.engine.sampling_params import SamplingParams
from tusi.models.random_checkpoint import tiny_config, write_random_checkpoint
from tusi.models.shapes import SMALL_TEXT


def checkpoint() -> Path:
    """The folder of the random checkpoint, written if it is not there yet."""
    folder = Path(tempfile.gettempdir()) / "tusi-small-shape"
    if not (folder / "config.json").exists():
        write_random_checkpoint(folder, config=tiny_config(text=SMALL_TEXT))
    return folder


def measure(llm: LLM, sequences: int, tokens: int, rounds: int) -> list[float]:
    """Tokens a second of each round."""
    params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, repetition_break=False)
    rates = []
    for number in range(rounds + 1):
        prompts = [{"prompt_token_ids": [5 + number, 7, 11 + i, 13]} for i in range(sequences)]
        begin = time.perf_counter()
        outputs = llm.generate(prompts, params)
        seconds = time.perf_counter() - begin
        count = sum(len(output.outputs[0].token_ids) for output in outputs)
        if number:  # the first round warms up
            rates.append(count / seconds)
    return rates


def profile_engine() -> cProfile.Profile:
    """Make the engine's thread run under a profiler; call before the LLM is made."""
    profile = cProfile.Profile()
    run = EngineThread._run

    def profiled(self: EngineThread, core: object) -> None:
        profile.runcall(run, self, core)  # type: ignore[arg-type]

    EngineThread._run = profiled  # type: ignore[method-assign,assignment]
    return profile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default="int4", choices=("fp32", "bf16", "int8", "int4"))
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sequences", type=int, nargs="*", default=[1, 8, 16])
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    folder = checkpoint()
    profile = profile_engine() if options.profile else None
    begin = time.perf_counter()
    most = max(options.sequences)
    num_blocks = most * (options.tokens // 16 + 2)
    with LLM(folder, dtype=options.dtype, max_model_len=2048, max_num_seqs=most, num_blocks=num_blocks) as llm:
        startup = time.perf_counter() - begin
        print(f"{options.dtype}, {kernels.isa()}, {kernels.num_threads()} threads: load {startup:.2f} s")
        for sequences in options.sequences:
            rates = measure(llm, sequences, options.tokens, options.rounds)
            middle = statistics.median(rates)
            print(f"{sequences:3d} sequences: {middle:8.0f} tok/s  ({min(rates):.0f} to {max(rates):.0f})")
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main()
