"""Speed of the attention kernels: a picture's patches in the vision tower, and decoding at long contexts.

    python benchmarks/attention_speed.py [--seconds 3]

vision: 3,996 patches, 16 heads of 80 (one of the tower's 32 layers for 1024 x 768 pixels), as GMAC/s and as time of all
layers. decode: one token of one sequence with 20 query and 4 KV heads of 128 (one of 28 layers), as the bandwidth at
which keys and values are read. Medians; the machine's ceilings stand beside it in `tusi bench`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from tusi import kernels
from tusi.kernels.reference import KVArray

PATCHES, VISION_HEADS, VISION_DIM, VISION_LAYERS = 3996, 16, 80, 32
HEADS, KV_HEADS, HEAD_DIM, BLOCK = 20, 4, 128, 16


def median_seconds(run: Callable[[], object], seconds: float) -> float:
    """The median time of a call, over about `seconds`."""
    run()
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def vision(seconds: float) -> None:
    """One layer's attention, float32 and bfloat16."""
    rng = np.random.default_rng(0)
    width = VISION_HEADS * VISION_DIM
    qkv = rng.standard_normal((PATCHES, 3 * width)).astype(np.float32)
    cos, sin = np.ones((PATCHES, VISION_DIM // 2), np.float32), np.zeros((PATCHES, VISION_DIM // 2), np.float32)
    bounds = np.array([0, PATCHES], np.int32)
    out = np.empty((PATCHES, VISION_HEADS, VISION_DIM), np.float32)
    for rounded in (False, True):
        run = partial(
            kernels.rotary_varlen_attention,
            *(qkv, cos, sin, bounds, VISION_DIM**-0.5, VISION_HEADS),
            round_to_bf16=rounded,
            out=out,
        )
        took = median_seconds(run, seconds)
        rate = 2 * PATCHES**2 * width / took / 1e9
        name = "bf16" if rounded else "fp32"
        print(f"vision {name}: {took * 1e3:7.1f} ms a layer, {rate:5.0f} GMAC/s, {took * VISION_LAYERS:5.2f} s in all")


def decode(seconds: float, context: int, dtype: type[np.generic]) -> None:
    """One token of one sequence. Layers take turns, so that their caches are not found in the processor's."""
    rng = np.random.default_rng(0)
    blocks, layers = -(-context // BLOCK), max(2, (256 << 20) // (context * KV_HEADS * HEAD_DIM * 4))
    shape = (blocks, KV_HEADS, BLOCK, HEAD_DIM)
    one = rng.standard_normal(shape).astype(np.float32)
    stored: KVArray = kernels.f32_to_bf16(one) if dtype is np.uint16 else one.astype(dtype)  # type: ignore[assignment]
    caches = [(np.ascontiguousarray(stored.swapaxes(2, 3)), stored.copy()) for _ in range(layers)]
    scales = np.ones(shape[:3], np.float32) if dtype is np.int8 else None
    q = rng.standard_normal((1, HEADS, HEAD_DIM)).astype(np.float32)
    table = rng.permutation(blocks).astype(np.int32)[None]
    starts, lengths = np.array([0, 1], np.int32), np.array([context], np.int32)

    def run() -> None:
        for key, value in caches:
            kernels.paged_attention(
                q, key, value, table, starts, lengths, 0.1, key_scales_CMS=scales, value_scales_CMS=scales
            )

    took = median_seconds(run, seconds) / layers
    rate = 2 * stored.nbytes / took / 1e9
    print(f"decode {np.dtype(dtype).name:8s} {context:6d} tokens: {took * 1e6:8.1f} us a layer, {rate:6.1f} GB/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    print(f"{kernels.isa()}, {kernels.num_threads()} threads")
    vision(options.seconds)
    for dtype in (np.float32, np.uint16, np.int8):
        for context in (64, 256, 512, 8192, 32768):
            decode(options.seconds, context, dtype)


if __name__ == "__main__":
    main()
