"""Decoding against the bandwidth beside it, on hosts whose memory is sometimes fast and sometimes slow.

    python benchmarks/decode_bandwidth.py FOLDER [--rounds 80] [--tokens 16] [--sequences 1]

A shared host's bandwidth may double within seconds, so one median over a long run says little. Here rounds are short,
each has its own look at the bandwidth before and after, and rounds are told apart by it (bins of 10 GB/s). Rounds whose
two looks differ by more than a tenth saw a change and are left out; how many, is said.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from statistics import median

from tusi.bench.ceilings import Beside, Peaks
from tusi.bench.subject import load_subject
from tusi.bench.text import TextBench
from tusi.bench.watched import WatchedModel
from tusi.engine.config import EngineConfig
from tusi.engine.core import EngineCore

BIN = 10  # GB/s
MOST_CHANGE = 0.1


def is_steady(looks: tuple[float, float]) -> bool:
    """Whether memory was as fast after a round as before."""
    return max(looks) - min(looks) <= MOST_CHANGE * max(looks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--sequences", type=int, default=1)
    args = parser.parse_args()
    config = EngineConfig(max_model_len=2048)
    subject = load_subject(args.folder, dtype="auto", engine_config=config)
    watched = WatchedModel(subject.model)
    bench = TextBench(EngineCore(watched, config), watched, Peaks(by_unit={}), args.rounds)
    beside = Beside()
    result = bench.decode(args.sequences, args.tokens, beside)
    if result.mbu is None:
        raise SystemExit("the bench told no share of the bandwidth.")
    bins: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for looks, bandwidth, rate, mbu in zip(
        beside.looks, result.bandwidth.values, result.rate.values, result.mbu.values, strict=True
    ):
        if is_steady(looks):
            bins[int(bandwidth // BIN) * BIN].append((rate, mbu))
    print("GB/s beside  rounds  tok/s   MBU (least to most)")
    for low, rounds in sorted(bins.items()):
        rates, shares = [rate for rate, _ in rounds], [mbu for _, mbu in rounds]
        print(
            f"{low:3d} to {low + BIN:3d}    {len(rounds):4d}  {median(rates):6.1f}  {median(shares):4.0%}"
            f"  ({min(shares):.0%} to {max(shares):.0%})"
        )
    left_out = args.rounds - sum(map(len, bins.values()))
    print(f"left out, the bandwidth changed meanwhile: {left_out} of {args.rounds}")


if __name__ == "__main__":
    main()
