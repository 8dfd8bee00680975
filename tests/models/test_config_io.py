"""Both layouts are read and written; what cannot be run is refused with every reason at once."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tusi.core.errors import CheckpointError, ConfigError
from tusi.models.config import Ernie4_5_VLMoeConfig
from tusi.models.config_io import load_config, parse_config
from tusi.models.config_write import ConfigLayout, config_to_dict
from tusi.models.random_checkpoint import TINY_TEXT, tiny_config, with_layers

# What the Hub's config.json of the 28B model says, training-only keys included.
PUBLISHED: dict[str, Any] = {
    "architectures": ["Ernie4_5_VLMoeForConditionalGeneration"],
    "auto_map": {"AutoConfig": "configuration_ernie4_5_vl.Ernie4_5_VLMoeConfig"},
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "fuse_rms_norm": True,
    "freq_allocation": 20,
    "hidden_size": 2560,
    "im_patch_id": 100295,
    "image_start_token_id": 101304,
    "image_end_token_id": 101305,
    "video_start_token_id": 101306,
    "video_end_token_id": 101307,
    "intermediate_size": 12288,
    "max_position_embeddings": 131072,
    "mm_vocab_size": 0,
    "model_type": "ernie4_5_moe_vl",
    "moe_capacity": [128, 128, 128],
    "moe_gate": "topk",
    "moe_intermediate_size": [1536, 512],
    "moe_k": 6,
    "moe_layer_start_index": [1, 1],
    "moe_layer_end_index": [29, 28],
    "moe_layer_interval": 1,
    "moe_multimodal_dispatch_use_allgather": "v2-alltoall-unpad-text",
    "moe_num_experts": [64, 64],
    "moe_num_shared_experts": 2,
    "moe_use_aux_free": True,
    "num_attention_heads": 20,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "pixel_hidden_size": 1280,
    "rms_norm_eps": 1e-05,
    "rope_3d": True,
    "rope_theta": 500000,
    "spatial_conv_size": 2,
    "temporal_conv_size": 2,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_bias": False,
    "vision_config": {
        "attn_implementation": "eager",
        "depth": 32,
        "embed_dim": 1280,
        "hidden_act": "quick_gelu",
        "hidden_size": 1280,
        "in_channels": 3,
        "mlp_ratio": 4,
        "model_type": "DFNRope_vision_transformer",
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "vit_num_recompute_layers": 10000,
    },
    "vocab_size": 103424,
}


def changed(**changes: Any) -> dict[str, Any]:
    return PUBLISHED | changes


def test_the_published_config_is_the_28b_model(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert parse_config(PUBLISHED) == Ernie4_5_VLMoeConfig(tie_word_embeddings=False)
    assert not caplog.records, "every published key is known"


def test_the_defaults_are_those_of_transformers() -> None:
    from transformers import Ernie4_5_VLMoeConfig as Theirs

    theirs = Theirs()
    assert parse_config(theirs.to_dict()) == replace(Ernie4_5_VLMoeConfig(), dtype=theirs.dtype or "bfloat16")
    # What save_pretrained writes leaves defaults out.
    assert parse_config(json.loads(theirs.to_json_string(use_diff=True))) == Ernie4_5_VLMoeConfig()


@pytest.mark.parametrize("layout", ["hub", "transformers"])
@pytest.mark.parametrize(
    "config",
    [
        Ernie4_5_VLMoeConfig(),
        tiny_config(tie_word_embeddings=True),
        tiny_config(text=with_layers(TINY_TEXT, 5, 2)),
        tiny_config(text=with_layers(TINY_TEXT, 3, 3)),
        replace(tiny_config(), eos_token_id=(2, 5), dtype="float32"),
    ],
)
def test_what_is_written_is_read_back(config: Ernie4_5_VLMoeConfig, layout: ConfigLayout) -> None:
    assert parse_config(json.loads(json.dumps(config_to_dict(config, layout)))) == config


def test_the_flat_layout_cannot_say_dense_layers_between_sparse_ones() -> None:
    config = tiny_config(text=replace(TINY_TEXT, num_hidden_layers=3, mlp_layer_types=("sparse", "dense", "sparse")))
    with pytest.raises(ConfigError, match=r"\[0, 2\].*layout='transformers'"):
        config_to_dict(config, "hub")
    assert parse_config(config_to_dict(config, "transformers")) == config
    with pytest.raises(ConfigError, match="'paddle' is unknown"):
        config_to_dict(config, "paddle")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "types"),
    [
        ({}, "dsssss"),
        ({"moe_layer_start_index": 0}, "ssssss"),
        ({"moe_layer_start_index": [2, 2], "moe_layer_end_index": [3, 3]}, "ddssdd"),
        ({"moe_layer_end_index": -1}, "dsssss"),
        ({"moe_layer_start_index": 0, "moe_layer_interval": 2}, "dsdsds"),
        ({"mlp_layer_types": ["sparse", "dense"] * 3}, "sdsdsd"),
    ],
)
def test_layer_types_follow_the_original_rule(changes: dict[str, Any], types: str) -> None:
    config = parse_config(changed(num_hidden_layers=6, **changes))
    assert "".join(kind[0] for kind in config.text_config.mlp_layer_types) == types


def test_positions_split_by_freq_allocation() -> None:
    assert parse_config(changed(freq_allocation=24)).text_config.mrope_section == (20, 20, 24)
    assert parse_config(changed(head_dim=None)).text_config.head_dim == 128


def test_videos_get_their_own_placeholder_where_the_vocabulary_has_one() -> None:
    assert parse_config(PUBLISHED).video_token_id == 103367
    assert parse_config(changed(vocab_size=102000)).video_token_id == 100295
    assert parse_config(changed(video_token_id=7)).video_token_id == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "rope_scaling is .*not implemented"),
        ({"use_bias": True}, "use_bias is True: biases in attention and MLP projections are not implemented"),
        ({"mm_vocab_size": 8192}, "mm_vocab_size is 8192: a separate multimodal head"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu': the decoder's activation is silu"),
        ({"moe_num_experts": [64, 32]}, r"moe_num_experts is \[64, 32\]: pools of unequal size"),
        ({"moe_num_experts": "many"}, "moe_num_experts is 'many': must be a whole number"),
        ({"moe_layer_start_index": [1, 3]}, "text and vision experts in different layers"),
        ({"moe_use_aux_free": False}, "without a correction bias"),
        ({"moe_gate_act": "sigmoid"}, "routers use softmax"),
        ({"sliding_window": 4096}, "sliding-window attention"),
        ({"quantization_config": {"quant_method": "awq"}}, "only compressed-tensors pack-quantized is read. Take the"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": -4}, "hidden_size is -4, not within"),
        ({"hidden_size": True}, "hidden_size is True: must be a whole number"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, not within 1..1024"),
        ({"moe_layer_interval": 0}, "moe_layer_interval is 0; it must be 1 or more"),
        ({"num_key_value_heads": 3}, r"num_attention_heads \(20\) is not a multiple of num_key_value_heads \(3\)"),
        ({"head_dim": 127}, "head_dim is 127"),
        ({"freq_allocation": 21}, "freq_allocation is 21 of 64 rotary pairs"),
        ({"moe_k": 65}, r"moe_k is 65, more than moe_num_experts \(64\)"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan: must be finite"),
        ({"rope_theta": 10**400}, "rope_theta is"),
        ({"im_patch_id": 200000}, "image_token_id is 200000, outside the vocabulary"),
        ({"eos_token_id": []}, "eos_token_id is empty"),
        ({"temporal_conv_size": 4}, "temporal_conv_size is 4 but vision_config makes it 2"),
        ({"pixel_hidden_size": 768}, "pixel_hidden_size is 768 but vision_config makes it 1280"),
        ({"vision_config": 5}, "vision_config is int, not an object"),
        ({"vision_config": {"hidden_size": 1281}}, "must be a multiple of 4 x num_heads"),
        ({"vision_config": {"mlp_ratio": 1e308}}, r"vision_config\.mlp_ratio is 1e\+308: must be above 0"),
        ({"hidden_size": 10**400}, "hidden_size is 10+\\.\\.\\.: must fit into 64 bits"),
        ({"vision_config": {"hidden_act": "gelu"}}, "vision tower's activation is quick_gelu"),
        ({"vision_config": {"embed_dim": 640, "hidden_size": 1280}}, "embed_dim is 640 but hidden_size is 1280"),
        ({"vision_config": {"temporal_merge_size": 3}}, "pairs of frames only"),
    ],
)
def test_what_cannot_be_run_is_refused_with_the_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        parse_config(changed(**changes))
    assert "download the checkpoint again" in str(caught.value)


def test_scaled_positions_are_refused_in_the_nested_layout_too() -> None:
    raw = config_to_dict(Ernie4_5_VLMoeConfig(), "transformers")
    raw["text_config"]["rope_parameters"]["rope_type"] = "yarn"
    with pytest.raises(CheckpointError, match="rope_type is 'yarn': scaled rotary positions"):
        parse_config(raw)


def test_all_problems_are_listed_at_once() -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_config(changed(use_bias=True, mm_vocab_size=1, hidden_size="wide", vision_config={"depth": 1.5}))
    message = str(caught.value)
    for part in ("use_bias", "mm_vocab_size", "hidden_size is 'wide'", "vision_config.depth is 1.5"):
        assert part in message


@pytest.mark.parametrize(
    ("model_type", "advice"),
    [
        ("ernie4_5_moe", "text-only ERNIE-4.5 mixture of experts; use transformers or vLLM"),
        ("qwen2_5_vl", "Qwen2.5-VL; use transformers, vLLM or llama.cpp"),
        ("bert", "Use a tool made for that model"),
        (None, "Use a tool made for that model"),
    ],
)
def test_another_model_is_sent_to_the_right_tool(model_type: str | None, advice: str) -> None:
    with pytest.raises(CheckpointError, match=r"Tusi runs ERNIE-4\.5-VL only") as caught:
        parse_config(changed(model_type=model_type))
    assert advice in str(caught.value)


def test_unknown_keys_are_named_in_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        parse_config(changed(brand_new=3, other_new="x"))
    assert [record.getMessage() for record in caplog.records] == [
        "config: keys that Tusi does not know have no effect: brand_new, other_new"
    ]


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "\xff", '{"model_type": ' + "[" * 100_000])
def test_a_file_that_is_no_config_is_a_checkpoint_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match="again"):
        load_config(tmp_path)


def test_a_folder_without_config_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json does not exist.*tusi pull"):
        load_config(tmp_path / "nowhere")
