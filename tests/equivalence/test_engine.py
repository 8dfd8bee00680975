"""One answer by every road: whatever the engine does to go fast or to fit, the log-probabilities stay the same.

The tiny real model runs prompts of text, pictures and video; each road is compared with one request alone in an engine
without limits, chunks or caches. Every test also says that its road was really taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.fixtures.equivalence import Generation, assert_all_same, assert_same_generation, drive, num_compared
from tests.fixtures.tiny_model import write_tiny_model
from tests.fixtures.tiny_requests import Medium, tiny_request
from tusi.engine.config import EngineConfig
from tusi.engine.core import EngineCore
from tusi.engine.request import Request
from tusi.engine.sampling_params import SamplingParams
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration as Model

MAX_TOKENS = 12
SMALL, WIDE, OTHER = Medium(1, (1, 4, 6)), Medium(2, (1, 4, 12)), Medium(3, (1, 4, 12))
CLIP = Medium(4, (6, 4, 4))

Parts = Sequence[int | Medium]
PROMPTS: dict[str, Parts] = {
    "text": [5, *range(40, 75)],
    "image": [5, 41, 42, WIDE, 43, 44, 45],
    "images": [5, SMALL, 50, 51, WIDE, 52, SMALL, 53],
    "video": [5, 60, CLIP, 61, 62],
    "mixed": [5, WIDE, 70, CLIP, 71, 72, 73],
}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = write_tiny_model(tmp_path_factory.mktemp("equivalence") / "tiny", dtype="float32")
    return Model.from_pretrained(folder, dtype="fp32")


def make_engine(model: Model, **limits: object) -> EngineCore:
    values = {"max_model_len": 128, "max_num_seqs": 8, "kv_cache_dtype": "fp32", "num_blocks": 128, **limits}
    return EngineCore(model, EngineConfig(**values))  # type: ignore[arg-type]


def make_request(model: Model, name: str, parts: Parts | None = None) -> Request:
    params = SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS, logprobs=-1, ignore_eos=True)
    return tiny_request(model.config, name, PROMPTS[name] if parts is None else parts, params)


def all_requests(model: Model) -> list[Request]:
    return [make_request(model, name) for name in PROMPTS]


@pytest.fixture(scope="session")
def alone(model: Model) -> dict[str, Generation]:
    """Each prompt by itself, in one piece, in an engine of its own."""
    results = {}
    for request in all_requests(model):
        results |= drive(make_engine(model, enable_prefix_caching=False), [request])
    assert num_compared(results.values()) == len(PROMPTS) * MAX_TOKENS
    assert len({tuple(g.token_ids) for g in results.values()}) == len(PROMPTS), "prompts must matter"
    return results


def test_alone_or_in_a_batch(model: Model, alone: dict[str, Generation]) -> None:
    engine = make_engine(model)
    assert_all_same(drive(engine, all_requests(model)), alone)
    assert engine.stats().num_steps < 2 * MAX_TOKENS, "they did run together"


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_prefilled_whole_or_in_chunks_alone(model: Model, alone: dict[str, Generation], chunk: int) -> None:
    results = {}
    for request in all_requests(model):
        engine = make_engine(model, max_num_batched_tokens=chunk, max_num_seqs=1, enable_prefix_caching=False)
        results |= drive(engine, [request])
        assert engine.stats().num_steps == MAX_TOKENS - 1 - (-request.num_prompt_tokens // chunk)
    assert_all_same(results, alone)


@pytest.mark.parametrize("chunk", [7, 13, 64])
def test_prefilled_in_chunks_in_a_batch(model: Model, alone: dict[str, Generation], chunk: int) -> None:
    engine = make_engine(model, max_num_batched_tokens=chunk, max_num_seqs=3)
    assert_all_same(drive(engine, all_requests(model)), alone)


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_cut_at_any_place_in_and_around_a_picture(model: Model, alone: dict[str, Generation], cut: int) -> None:
    request = make_request(model, "image")
    engine = make_engine(model, max_num_batched_tokens=cut, max_num_seqs=1, encoder_cache_tokens=4)
    assert_same_generation(drive(engine, [request])["image"], alone["image"])


@pytest.mark.parametrize("block_size", [1, 3, 16])
def test_cold_or_from_the_prefix_cache(model: Model, alone: dict[str, Generation], block_size: int) -> None:
    engine = make_engine(model, block_size=block_size, num_blocks=2048 // block_size)
    assert_all_same(drive(engine, all_requests(model)), alone)
    warm = drive(engine, all_requests(model))
    assert_all_same(warm, alone)
    for name, result in warm.items():
        num_prompt = make_request(model, name).num_prompt_tokens
        assert result.num_cached_tokens == (num_prompt - 1) // block_size * block_size


def test_from_the_prefix_cache_with_the_pictures_features_gone(model: Model, alone: dict[str, Generation]) -> None:
    # The hit ends inside the picture: it must be encoded again for the rest of its placeholders.
    engine = make_engine(model, block_size=7, encoder_cache_tokens=12)
    drive(engine, [make_request(model, "image"), make_request(model, "video")])
    result = drive(engine, [make_request(model, "image")])["image"]
    assert result.num_cached_tokens == 14, "placeholders are 4 .. 16"
    assert_same_generation(result, alone["image"])


def test_an_answer_taken_up_again_as_a_prompt(model: Model) -> None:
    # The blocks of generated tokens, with positions that count on from the prompt's delta, serve the next turn.
    engine = make_engine(model, block_size=4)
    first = drive(engine, [make_request(model, "mixed")])["mixed"]
    turn: Parts = [*PROMPTS["mixed"], *first.token_ids, 80, 81]
    warm = drive(engine, [make_request(model, "turn", turn)])["turn"]
    assert warm.num_cached_tokens > make_request(model, "mixed").num_prompt_tokens
    cold = drive(make_engine(model, enable_prefix_caching=False), [make_request(model, "turn", turn)])["turn"]
    assert_same_generation(warm, cold)


@pytest.mark.parametrize("enable_prefix_caching", [True, False])
def test_quiet_or_preempted(model: Model, alone: dict[str, Generation], *, enable_prefix_caching: bool) -> None:
    engine = make_engine(
        model,
        block_size=4,
        num_blocks=27,
        max_num_batched_tokens=24,
        encoder_cache_tokens=16,
        enable_prefix_caching=enable_prefix_caching,
    )
    assert_all_same(drive(engine, all_requests(model)), alone)
    assert engine.stats().num_preemptions >= 2


def test_the_same_prompt_with_another_picture_never_hits_past_the_first_block_that_differs(model: Model) -> None:
    block_size = 4
    engine = make_engine(model, block_size=block_size)
    drive(engine, [make_request(model, "image")])
    parts: Parts = [OTHER if part == WIDE else part for part in PROMPTS["image"]]
    other = make_request(model, "other", parts)
    assert other.prompt_token_ids == make_request(model, "image").prompt_token_ids
    warm = drive(engine, [other])["other"]
    first_placeholder = other.mm_features[0].position.offset
    assert warm.num_cached_tokens == first_placeholder // block_size * block_size
    cold = drive(make_engine(model, enable_prefix_caching=False), [make_request(model, "other", parts)])["other"]
    assert_same_generation(warm, cold)


def test_the_picture_matters(model: Model, alone: dict[str, Generation]) -> None:
    # Else the test above would pass on a model that is blind.
    parts: Parts = [OTHER if part == WIDE else part for part in PROMPTS["image"]]
    other = drive(make_engine(model), [make_request(model, "image", parts)])["image"]
    with pytest.raises(AssertionError):
        assert_same_generation(other, alone["image"])


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_a_rounded_cache_gives_one_answer_by_every_road_too(model: Model, dtype: str) -> None:
    def run(**limits: object) -> dict[str, Generation]:
        return drive(make_engine(model, **{"kv_cache_dtype": dtype, **limits}), all_requests(model))

    # Keys and values are rounded when stored and always read from the store, so a road changes sums only; a sum that
    # falls on the other side of a rounding step moves a value by 2^-8 of itself (int8: of its head's largest), hence
    # the wider tolerance.
    whole = run()
    assert_all_same(run(max_num_batched_tokens=8), whole, atol=0.1)
    assert_all_same(run(block_size=4, num_blocks=27, max_num_batched_tokens=24), whole, atol=0.1)
