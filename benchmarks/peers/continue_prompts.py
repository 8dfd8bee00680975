"""One engine in one process, which continues token prompts when it is told to. Run by `vllm_cpu`, for both engines.

    python continue_prompts.py tusi|vllm FOLDER DTYPE MAX_SEQUENCES

Both get the same prompts through their `LLM.generate`, greedily and without an end. Reads a JSON object a line
({"sequences", "tokens", "round"}), answers with one ({"tokens_per_second"}); the first line it writes, once it is
ready, is {"load_seconds"}. Uses nothing but the engine that it is asked for, so that it runs in either's environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_MODEL_LEN = 2048

Generate = Callable[[list[dict[str, Any]], int], int]
"""Continues prompts by so many tokens; returns how many tokens came."""


def load_vllm(folder: Path, dtype: str, max_sequences: int) -> Generate:
    """vLLM with random weights. No tokenizer: it makes no text of the tokens."""
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    llm = LLM(
        str(folder),
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype=dtype,
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=max_sequences,
        kv_cache_memory_bytes=1 << 29,
    )

    def generate(prompts: list[dict[str, Any]], tokens: int) -> int:
        params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, detokenize=False)
        outputs = llm.generate(prompts, params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return generate


def load_tusi(folder: Path, dtype: str, max_sequences: int) -> Generate:
    """Tusi with a random checkpoint's weights. It does make text of the tokens."""
    from tusi.backends.llm import LLM
    from tusi.engine.sampling_params import SamplingParams

    llm = LLM(
        folder,
        dtype=dtype,  # type: ignore[arg-type]
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=max_sequences,
        num_blocks=max_sequences * MAX_MODEL_LEN // 16,
    )

    def generate(prompts: list[dict[str, Any]], tokens: int) -> int:
        params = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, repetition_break=False)
        outputs = llm.generate(prompts, params)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return generate


def prompts_of(round_number: int, sequences: int) -> list[dict[str, Any]]:
    """Short prompts, none twice, so that no engine knows their beginnings."""
    return [{"prompt_token_ids": [5 + round_number, 7 + sequences, 11 + at, 13]} for at in range(sequences)]


def main() -> None:
    # Whatever the engines print goes to standard error; standard output is the conversation.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine, folder, dtype, max_sequences = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    begin = time.perf_counter()
    generate = (load_vllm if engine == "vllm" else load_tusi)(folder, dtype, max_sequences)
    print(json.dumps({"load_seconds": time.perf_counter() - begin}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        prompts = prompts_of(asked["round"], asked["sequences"])
        begin = time.perf_counter()
        count = generate(prompts, asked["tokens"])
        rate = count / (time.perf_counter() - begin)
        print(json.dumps({"tokens_per_second": rate}), file=answers, flush=True)


if __name__ == "__main__":
    main()
