"""What a step costs besides the model: scheduling, packing, drawing, making text, handing over.

    python benchmarks/step_overhead.py [--sequences 1 8 16] [--vocab 8192 103424] [--draws greedy top_p penalties]

A LocalBackend whose model computes nothing: it hands out one array of random logits, so that all of the time between
two of its calls is the runtime's own. Figures are microseconds a step, median and 10th percentile of the steps in
which all sequences drew a token. Nothing here depends on weights or memory bandwidth.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from small_shape import checkpoint

from tusi.backends.llm import LLM
from tusi.backends.local.backend import LocalBackend
from tusi.backends.local.loading import load_frontend
from tusi.engine.config import EngineConfig
from tusi.engine.sampling_params import SamplingParams
from tusi.models.attention_metadata import AttentionMetadata, LayerKVCache
from tusi.models.config import Ernie4_5_VLMoeConfig

F32 = NDArray[np.float32]
DRAWS = {
    "greedy": SamplingParams(temperature=0.0),
    "temperature": SamplingParams(temperature=0.8, seed=1),
    "top_p": SamplingParams(temperature=0.8, top_p=0.9, seed=1),
    "top_k": SamplingParams(temperature=0.8, top_k=40, top_p=0.95, seed=1),
    "penalties": SamplingParams(temperature=0.0, repetition_penalty=1.1, frequency_penalty=0.2),
    "logprobs": SamplingParams(temperature=0.0, logprobs=5),
    "loops": SamplingParams(temperature=0.0, repetition_break=True),
}


class StillModel:
    """A RunnableModel that takes no time: one row of random logits for each sequence, the same at every step."""

    def __init__(self, config: Ernie4_5_VLMoeConfig, max_num_seqs: int) -> None:
        self.config = config
        text = config.text_config
        self._embeds_TD = np.zeros((1024, text.hidden_size), np.float32)
        rng = np.random.default_rng(0)
        self._logits_RV = rng.normal(0.0, 2.0, (max_num_seqs, text.vocab_size)).astype(np.float32)
        self._first_call_seconds = 0.1
        self.calls: list[tuple[float, float, int]] = []

    def embed(self, input_ids_T: NDArray[np.int64]) -> F32:
        return self._embeds_TD[: len(input_ids_T)]

    def get_media_features(self, pixel_values: F32, grid_thw: tuple[int, int, int]) -> F32:
        raise NotImplementedError("no media here")

    def forward(
        self,
        inputs_embeds_TD: F32,
        position_ids_3T: NDArray[np.int32],
        vision_mask_T: NDArray[np.bool_],
        attn: AttentionMetadata,
        kv_caches: Sequence[LayerKVCache],
    ) -> F32:
        if self._first_call_seconds:  # until all requests have come, so that they run side by side
            time.sleep(self._first_call_seconds)
            self._first_call_seconds = 0.0
        return inputs_embeds_TD

    def compute_logits(self, hidden_TD: F32) -> F32:
        now = time.perf_counter()
        self.calls.append((now, time.perf_counter(), len(hidden_TD)))
        return self._logits_RV[: len(hidden_TD)]


def measure(vocab_size: int, sequences: int, params: SamplingParams, tokens: int) -> list[float]:
    """Microseconds between two calls of the model, of the steps in which every sequence drew a token."""
    folder = checkpoint()
    frontend = load_frontend(folder, name="still")
    text = replace(frontend.config.text_config, vocab_size=vocab_size, num_hidden_layers=1, mlp_layer_types=("sparse",))
    frontend = replace(frontend, config=replace(frontend.config, text_config=text))
    model = StillModel(frontend.config, sequences)
    config = EngineConfig(max_num_seqs=sequences, max_model_len=2048, num_blocks=(tokens + 64) * sequences // 16)
    params = replace(params, max_tokens=tokens, ignore_eos=True)
    with LocalBackend(frontend, model, config) as backend:
        llm = LLM.from_backend(backend)
        llm.generate([{"prompt_token_ids": [5, 7, 11 + i, 13]} for i in range(sequences)], params)
    calls = model.calls
    return [
        1e6 * (after[0] - before[1])
        for before, after in itertools.pairwise(calls)
        if before[2] == after[2] == sequences
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, nargs="*", default=[1, 8, 16])
    parser.add_argument("--vocab", type=int, nargs="*", default=[8192])
    parser.add_argument("--draws", nargs="*", default=["greedy"], choices=DRAWS)
    parser.add_argument("--tokens", type=int, default=384)
    options = parser.parse_args()
    for vocab_size in options.vocab:
        for draw in options.draws:
            params = DRAWS[draw]
            if draw != "loops":
                params = replace(params, repetition_break=False)
            for sequences in options.sequences:
                times = measure(vocab_size, sequences, params, options.tokens)
                low = statistics.quantiles(times, n=10)[0]
                middle = statistics.median(times)
                print(
                    f"vocabulary {vocab_size:6d}, {draw:11s} {sequences:3d} sequences: "
                    f"{middle:8.0f} us a step (10th percentile {low:.0f}), {middle / sequences:6.1f} a token"
                )


if __name__ == "__main__":
    main()
