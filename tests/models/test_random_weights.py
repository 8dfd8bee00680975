from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tusi.core.errors import ConfigError
from tusi.core.types import WeightFormat
from tusi.models.full_sequence import new_kv_caches, one_request_metadata
from tusi.models.key_table import tensor_specs
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration
from tusi.models.moe import MoeBlock, RoutingRecorder
from tusi.models.random_weights import random_model
from tusi.models.shapes import SHAPES, SMALL_TEXT, named_shape

FORMATS: tuple[WeightFormat, ...] = ("fp32", "bf16", "int8", "int4")


def hidden_of(model: Ernie4_5_VLMoeForConditionalGeneration, tokens: int, routing: RoutingRecorder) -> np.ndarray:
    text = model.config.text_config
    ids = np.random.default_rng(0).integers(0, text.vocab_size, tokens)
    positions = np.tile(np.arange(tokens, dtype=np.int32), (3, 1))
    return model.forward(
        model.embed(ids),
        positions,
        np.zeros(tokens, np.bool_),
        one_request_metadata(tokens),
        new_kv_caches(text, tokens),
        routing=routing,
    )


@pytest.mark.parametrize("weight_format", FORMATS)
def test_signals_stay_near_one_and_routers_spread_their_choice(weight_format: WeightFormat) -> None:
    config = named_shape("small")
    text = replace(config.text_config, num_hidden_layers=2, mlp_layer_types=("sparse", "sparse"))
    model = random_model(replace(config, text_config=text), weight_format)
    routing = RoutingRecorder()
    hidden_TD = hidden_of(model, 200, routing)
    assert np.isfinite(hidden_TD).all()
    assert 0.8 < hidden_TD.std() < 1.25
    assert 0.3 < model.compute_logits(hidden_TD).std() < 3.0
    counts = np.bincount(routing.topk_ids(0).reshape(-1), minlength=16)
    # 50 each would be perfectly even; routers that always chose the same four would give them 200 and the others none.
    assert np.count_nonzero(counts) >= 12
    assert counts.max() < 190


@pytest.mark.parametrize("weight_format", FORMATS)
def test_every_part_is_there_in_the_format_that_loading_gives_it(weight_format: WeightFormat) -> None:
    made = random_model(named_shape("tiny"), weight_format)
    block = made.language_model.layers[1].mlp
    assert isinstance(block, MoeBlock)
    assert block.text_moe.gate_up_proj.format == weight_format
    assert block.vision_moe.down_proj.shape == (8, 64, 16)
    assert made.lm_head.format == {"int4": "int8", "int8": "bf16"}.get(weight_format, weight_format)
    features = made.get_media_features(np.zeros((16, 588), np.float32), (1, 4, 4))
    assert features.shape == (4, 64)


def test_a_seed_gives_the_same_weights_and_experts_differ() -> None:
    config = named_shape("small")
    one, same, other = (random_model(config, "int4", seed=seed) for seed in (1, 1, 2))
    stacks = []
    for model in (one, same, other):
        block = model.language_model.layers[0].mlp
        assert isinstance(block, MoeBlock)
        stacks.append(block.text_moe.down_proj)
    assert np.array_equal(stacks[0][3].to_f32(), stacks[1][3].to_f32())
    assert not np.array_equal(stacks[0][3].to_f32(), stacks[2][3].to_f32())
    assert not np.array_equal(stacks[0][3].to_f32(), stacks[0][4].to_f32())
    # As drawn, the entries have the deviation that keeps signals near 1.
    assert stacks[0][3].to_f32().std() == pytest.approx(256**-0.5, rel=0.1)


def test_progress_ends_with_all_of_it() -> None:
    seen: list[tuple[str, int, int]] = []
    config = named_shape("tiny")
    random_model(config, "bf16", progress=lambda *call: seen.append(call))
    assert {name for name, _, _ in seen} == set(tensor_specs(config))
    assert seen[-1][1] == seen[-1][2]


def test_shapes_have_names() -> None:
    assert [named_shape(name).text_config.num_hidden_layers for name in SHAPES] == [28, 28, 14, 8, 2]
    assert named_shape("28b-tied").tie_word_embeddings
    assert named_shape("small").text_config == SMALL_TEXT
    with pytest.raises(ConfigError, match="expected one of 28b"):
        named_shape("29b")
