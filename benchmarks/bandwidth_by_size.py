"""How large an array must be for its reads to be reads of memory.

    python benchmarks/bandwidth_by_size.py [--rounds 16]

Reads arrays of 64 MiB to 2 GiB again and again, sizes in turns, and tells each size's rate as a share of the largest's
in the same turn. Caches, also those that a host does not show its guests, make small arrays look faster than memory is;
the size that `tusi bench` takes (tusi.bench.ceilings.READ_BYTES) must stand at 1.00. Turns in which the two largest
differ by more than a twentieth saw the host change and are left out.
"""

from __future__ import annotations

import argparse
from statistics import median

from tusi import kernels

SIZES_MIB = (64, 128, 256, 512, 1024, 2048)
MIB_A_TURN = 2048  # read of each size
MOST_CHANGE = 0.05


def turn() -> dict[int, float]:
    """GB/s by size, now."""
    return {size: median(kernels.read_bandwidths(size * 2**20, max(2, MIB_A_TURN // size))) for size in SIZES_MIB}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=16)
    turns = [turn() for _ in range(parser.parse_args().rounds)]
    second, largest = SIZES_MIB[-2:]
    steady = [rates for rates in turns if abs(rates[second] - rates[largest]) <= MOST_CHANGE * rates[largest]]
    steady.sort(key=lambda rates: rates[largest])
    half = len(steady) // 2
    print(f"{len(steady)} steady turns of {len(turns)}")
    for name, chosen in (("slow half", steady[:half]), ("fast half", steady[half:])):
        if chosen:
            print(f"{name}, {median(rates[largest] for rates in chosen):.1f} GB/s:", end="")
            for size in SIZES_MIB:
                print(f"  {size} MiB {median(rates[size] / rates[largest] for rates in chosen):.2f}", end="")
            print()


if __name__ == "__main__":
    main()
