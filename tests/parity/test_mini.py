"""tusi-mini answers 200 questions of its world as transformers would: greedily, in float32, on the same weights.

Every token that we wrote is looked up in one pass of transformers over prompt and answer: there it must be the
likeliest one, or tie with it. By induction over the tokens this is the greedy answer. Half of the questions are asked
after an expert's tool calls (crops, search results) have been answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.mini import mini_model
from tusi.backends.collect import collect
from tusi.backends.local.backend import LocalBackend
from tusi.backends.local.prompts import prepare_chat
from tusi.backends.protocol import ChatRequest
from tusi.chat.messages import Message
from tusi.engine.config import EngineConfig
from tusi.engine.sampling_params import SamplingParams
from tusi.evals.world import world_tasks
from tusi.processing.types import ProcessedPrompt
from tusi.tasks.world import WorldSample

SAMPLES = 200
MAX_TOKENS = 48
TIE = 1e-3
"""Two logits nearer than this may change places: both sides add float32 numbers in their own order."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    return mini_model(tmp_path_factory.mktemp("mini") / "checkpoint")


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[LocalBackend]:
    engine = EngineConfig(max_num_seqs=32, max_model_len=4096, num_blocks=1536, kv_cache_dtype="fp32")
    with LocalBackend.load(folder, dtype="fp32", engine_config=engine) as backend:
        yield backend


def test_greedy_answers_are_transformers(folder: Path, backend: LocalBackend) -> None:
    from tests.fixtures.transformers_model import load_transformers, reference_logits

    with ThreadPoolExecutor(32) as pool:
        pairs = list(pool.map(lambda request: prompt_and_answer(backend, request), world_requests()))
    model = load_transformers(folder)
    total = ties = 0
    for number, (prompt, answer) in enumerate(pairs):
        logits_TV, _ = reference_logits(model, with_answer(prompt, answer))  # type: ignore[arg-type]
        written_NV = logits_TV[len(prompt.input_ids) - 1 : -1]
        given_N = written_NV[np.arange(len(answer)), answer]
        behind_N = written_NV.max(axis=1) - given_N
        assert (behind_N < TIE).all(), f"sample {number}, token {int(behind_N.argmax())} is {behind_N.max()} behind"
        total += len(answer)
        ties += int((behind_N > 0).sum())
    assert len(pairs) == SAMPLES
    assert total > SAMPLES * 5
    assert ties < 0.002 * total


def prompt_and_answer(backend: LocalBackend, request: ChatRequest) -> tuple[ProcessedPrompt, Sequence[int]]:
    """The answer as the model would have it: no thought is closed for it to make room for an answer."""
    prepared = replace(prepare_chat(backend.frontend, request), limits_thinking=False)
    with backend.stream_prepared(prepared, request.sampling_params) as stream:
        choices, _ = collect(stream, n=1)
    return prepared.processed, choices[0].token_ids


def world_requests() -> Iterator[ChatRequest]:
    """Held-out samples of all families in turn; of every second one, what comes after the expert's last tool call."""
    tasks = world_tasks(samples=-(-SAMPLES // 6))
    params = SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS, repetition_break=False)
    for number in range(SAMPLES):
        task = tasks[number % len(tasks)]
        index = number // len(tasks)
        sample = task[index]
        messages, tools = task.prompt(sample)
        if index % 2:
            messages = (*messages, *before_the_answer(sample))
        yield ChatRequest(messages=tuple(messages), tools=tuple(tools), sampling_params=params)


def before_the_answer(sample: WorldSample) -> Sequence[Message]:
    return sample.trace[:-1]


def with_answer(prompt: ProcessedPrompt, answer: Sequence[int]) -> ProcessedPrompt:
    """The prompt with text tokens after it."""
    begin, count = len(prompt.input_ids), len(answer)
    positions = np.arange(begin, begin + count, dtype=np.int32) + prompt.mrope_position_delta
    text = np.zeros(count, np.int32)
    return replace(
        prompt,
        input_ids=(*prompt.input_ids, *answer),
        mm_token_type_ids=np.concatenate([prompt.mm_token_type_ids, text]),
        moe_mm_token_type_ids=np.concatenate([prompt.moe_mm_token_type_ids, text]),
        position_ids=np.concatenate([prompt.position_ids, np.broadcast_to(positions, (3, count))], axis=1),
    )
