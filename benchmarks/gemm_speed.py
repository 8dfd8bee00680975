"""Matrix products and experts at the shapes of the 28 B model, beside the ceilings measured around each figure.

    python benchmarks/gemm_speed.py [--rounds 7] [products] [vision] [decode] [experts] [small]

Integer products are rated by the int8 peak (`vpdpbusd` and nothing else), single tokens by the bandwidth of reading.
Weights are random codes; those of a decode figure take a gigabyte, so that no cache holds them. Prints medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from tusi import kernels
from tusi.bench.ceilings import read_bandwidth
from tusi.kernels.packed import packed_shapes
from tusi.quant.memory import empty_array

GROUP = 32
RNG = np.random.default_rng(0)


def matrix(n: int, k: int, bits: int) -> tuple[Any, Any]:
    codes_shape, scales_shape = packed_shapes(n, k, GROUP, bits)
    codes, scales = empty_array(codes_shape, np.uint8), empty_array(scales_shape, np.uint16)
    codes[...] = RNG.integers(0, 256, codes.shape[1:], np.uint8)
    scales[...] = 0x3C00
    return codes, scales


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape, np.float32)


def median(rounds: int, run: Callable[[], object]) -> float:
    times = []
    run()
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def peak() -> float:
    return statistics.median(kernels.unit_peaks("int8", 3, 0.05) or [float("nan")])


def product(n: int, k: int, tokens: int, bits: int, rounds: int) -> None:
    weight, x_TK, out = matrix(n, k, bits), normal(tokens, k), np.empty((tokens, n), np.float32)
    before = peak()
    seconds = median(rounds, lambda: kernels.qgemm(x_TK, *weight, n, GROUP, out=out))
    ceiling = (before + peak()) / 2
    rate = n * k * tokens / seconds / 1e9
    print(
        f"int{bits} {n} x {k}, {tokens} rows: {seconds * 1e3:.2f} ms, {rate:.0f} GMAC/s, {rate / ceiling:.0%} of peak"
    )


def decode(n: int, k: int, tokens: int, bits: int, rounds: int) -> None:
    nbytes = sum(array.nbytes for array in matrix(n, k, bits))
    weights = [matrix(n, k, bits) for _ in range(max(1, (1 << 30) // nbytes))]
    x_TK, out = normal(tokens, k), np.empty((tokens, n), np.float32)

    def run() -> None:
        for weight in weights:
            kernels.qgemm(x_TK, *weight, n, GROUP, out=out)

    before = read_bandwidth()
    seconds = median(rounds, run)
    ceiling = (before + read_bandwidth()) / 2
    rate = nbytes * len(weights) / seconds / 1e9
    print(f"int{bits} {n} x {k}, {tokens} rows: {rate:.1f} GB/s, {rate / ceiling:.0%} of {ceiling:.1f}")


def experts(count: int, width: int, inner: int) -> tuple[kernels.Experts, int]:
    arrays = []
    for n, k in ((2 * inner, width), (width, inner)):
        for shape, fill, dtype in zip(
            packed_shapes(n, k, GROUP, 4), (0x77, 0x3C00), (np.uint8, np.uint16), strict=True
        ):
            array = empty_array((count, *shape), dtype)
            array[...] = fill
            arrays.append(array)
    made = kernels.Experts(arrays[0], arrays[1], GROUP, arrays[2], arrays[3], GROUP, width, inner)
    return made, sum(array.nbytes for array in arrays)


def moe(token_counts: tuple[int, ...], rounds: int, *, count: int, width: int, inner: int, shared: int, k: int) -> None:
    layers = []
    for _ in range(4):
        routed, routed_bytes = experts(count, width, inner)
        common, common_bytes = experts(1, width, shared)
        pool = kernels.Pool(normal(count, width) / np.float32(50), np.zeros(count, np.float32), routed)
        layers.append((pool, common))
    norm_D = np.ones(width, np.float32)
    for tokens in token_counts:
        x_TD, ids = normal(tokens, width), set()

        def run(x_TD: Any = x_TD, ids: set[tuple[int, int]] = ids) -> None:
            for layer, (pool, common) in enumerate(layers):
                hidden = x_TD.copy()
                topk = kernels.moe(hidden, pool, None, common, top_k=k, norm_D=norm_D, eps=1e-5, add=True, out=hidden)
                ids.update((layer, int(e)) for e in np.unique(topk[2]))

        before, peak_before = read_bandwidth(), peak()
        seconds = median(rounds, run) / len(layers)
        ceiling, peak_after = (before + read_bandwidth()) / 2, peak()
        read = len(ids) / len(layers) * routed_bytes / count + common_bytes
        macs = tokens * 3 * width * (k * inner + shared)
        rate, share = read / seconds / 1e9, macs / seconds / 1e9 / ((peak_before + peak_after) / 2)
        print(
            f"{count} experts of {inner}, {tokens} tokens: {seconds * 1e6:.0f} us a layer, {rate:.1f} GB/s "
            f"({rate / ceiling:.0%} of {ceiling:.1f}), {macs / seconds / 1e9:.0f} GMAC/s ({share:.0%} of peak)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["products", "vision", "decode", "experts", "small"])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    print(f"{kernels.isa()}, {kernels.num_threads()} threads, groups of {GROUP}, {args.rounds} rounds")
    if "products" in args.parts:
        for n, k, tokens in (
            (3072, 2560, 512),
            (2560, 2560, 512),
            (2560, 1536, 512),
            (3072, 2560, 48),
            (3072, 2560, 12),
        ):
            product(n, k, tokens, 4, args.rounds)
    if "vision" in args.parts:
        for n, k in ((3840, 1280), (1280, 1280), (5120, 1280), (1280, 5120)):
            product(n, k, 3996, 8, args.rounds)
    if "decode" in args.parts:
        for tokens in (1, 2, 4, 8):
            decode(3072, 2560, tokens, 4, args.rounds)
        decode(2560, 1536, 1, 4, args.rounds)
        decode(103424, 2560, 1, 8, args.rounds)
    if "experts" in args.parts:
        moe((1, 2, 8, 16, 512), args.rounds, count=64, width=2560, inner=1536, shared=3072, k=6)
    if "small" in args.parts:
        moe((1, 8, 16, 512), args.rounds, count=16, width=512, inner=256, shared=256, k=4)


if __name__ == "__main__":
    main()
