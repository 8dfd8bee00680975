"""config.json in both published layouts: the Hub's flat one and transformers' nested one.

In: a dict as JSON gives it; out: an `Ernie4_5_VLMoeConfig`, or one CheckpointError that lists every problem.
`config_write` is the inverse; which keys are harmless or refused stands in `config_keys`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tusi.core.errors import CheckpointError
from tusi.models.config import (
    MAX_LAYERS,
    Ernie4_5_VLMoeConfig,
    Ernie4_5_VLMoeTextConfig,
    Ernie4_5_VLMoeVisionConfig,
    MlpLayerType,
    find_problems,
)
from tusi.models.config_fields import (
    REQUIRED,
    Keys,
    Problems,
    as_bool,
    as_both,
    as_float,
    as_ids,
    as_int,
    as_layer_types,
    as_pair,
    as_ratio,
    as_section,
    as_str,
)
from tusi.models.config_keys import (
    HARMLESS,
    HARMLESS_VISION,
    MODEL_TYPES,
    OTHER_TOOLS,
    REFUSED,
    REFUSED_VISION,
    Refusal,
)
from tusi.models.quantization import parse_quantization


def load_config(folder: str | Path) -> Ernie4_5_VLMoeConfig:
    """Read `folder`/config.json. Raises CheckpointError if it is missing, unreadable or describes another model."""
    return parse_config(read_config_json(folder), source=str(Path(folder) / "config.json"))


def read_config_json(folder: str | Path) -> object:
    """What `folder`/config.json says, not yet understood. Raises CheckpointError if it is missing or no JSON."""
    path = Path(folder) / "config.json"
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} does not exist; a checkpoint folder holds config.json next to its *.safetensors files. "
            "Check the path, or download the checkpoint with `tusi pull`."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read as JSON ({error}); it may be cut short or be another file. Download it again."
        ) from error


def parse_config(raw: object, *, source: str = "config.json") -> Ernie4_5_VLMoeConfig:
    """Build the configuration from either layout. Raises one CheckpointError for all problems."""
    if not isinstance(raw, dict):
        raise CheckpointError(f"{source} holds {type(raw).__name__}, not a JSON object. Download it again.")
    _check_model_type(raw, source)
    problems = Problems()
    config = _nested(raw, problems) if "text_config" in raw else _flat(raw, problems)
    found = problems.listed if problems.guessed else [*problems.listed, *find_problems(config)]
    if found:
        listed = "\n".join(f"  - {problem}" for problem in found)
        raise CheckpointError(
            f"{source} describes a model that cannot be run:\n{listed}\n"
            "Expected the configuration of an ERNIE-4.5-VL checkpoint as published (-PT or -Thinking). "
            "Correct these values or download the checkpoint again."
        )
    return config


def _check_model_type(raw: dict[str, Any], source: str) -> None:
    model_type = raw.get("model_type")
    if model_type in MODEL_TYPES:
        return
    tool = OTHER_TOOLS.get(str(model_type))
    what = f"That is {tool}." if tool else "Use a tool made for that model, transformers for example."
    raise CheckpointError(
        f"{source} says model_type {model_type!r}; Tusi runs ERNIE-4.5-VL only "
        f"(model_type {' or '.join(MODEL_TYPES)}). {what}"
    )


def _num_experts(keys: Keys, default: Any) -> int:
    text: int
    text, vision = keys.get("moe_num_experts", as_both, default)
    if text != vision:
        keys.problems.append(
            f"{keys.path('moe_num_experts')} is {[text, vision]}: pools of unequal size are not implemented"
        )
    return text


def _layer_types_from_range(keys: Keys, num_layers: int) -> tuple[MlpLayerType, ...]:
    """The original rule: sparse where start <= layer <= end and (layer + 1) is a multiple of the interval."""
    start = keys.get("moe_layer_start_index", as_both, (1, 1))
    end = keys.get("moe_layer_end_index", as_both, (-1, -1))
    interval = keys.get("moe_layer_interval", as_int, 1)
    if interval < 1:
        keys.problems.append(f"moe_layer_interval is {interval}; it must be 1 or more")
    if interval < 1 or num_layers > MAX_LAYERS:
        return ()
    pools = [
        tuple[MlpLayerType, ...](
            "sparse" if first <= n <= (last if last >= 0 else num_layers - 1) and (n + 1) % interval == 0 else "dense"
            for n in range(num_layers)
        )
        for first, last in zip(start, end, strict=True)
    ]
    if pools[0] != pools[1]:
        keys.problems.append(
            f"moe_layer_start_index {list(start)} and moe_layer_end_index {list(end)} put text and vision experts in "
            "different layers, which is not implemented"
        )
    return pools[0]


def _text(keys: Keys, *, flat: bool) -> Ernie4_5_VLMoeTextConfig:
    """Fields that both layouts spell alike. The flat layout states its sizes; the nested one leaves defaults out."""
    default = Ernie4_5_VLMoeTextConfig()

    def size(name: str) -> int:
        value: int = keys.get(name, as_int, REQUIRED if flat else getattr(default, name))
        return value

    hidden_size, num_heads = size("hidden_size"), size("num_attention_heads")
    head_dim = keys.get("head_dim", as_int, hidden_size // max(1, num_heads))
    num_layers = size("num_hidden_layers")
    unstated: tuple[MlpLayerType, ...] = ()
    layer_types = keys.get("mlp_layer_types", as_layer_types, unstated)
    theta, section = _flat_rope(keys, head_dim) if flat else _nested_rope(keys)
    return Ernie4_5_VLMoeTextConfig(
        vocab_size=size("vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=size("intermediate_size"),
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=size("num_key_value_heads"),
        head_dim=head_dim,
        max_position_embeddings=size("max_position_embeddings"),
        rms_norm_eps=keys.get("rms_norm_eps", as_float, default.rms_norm_eps),
        rope_theta=theta,
        mrope_section=section,
        moe_num_experts=_num_experts(keys, REQUIRED if flat else (64, 64)),
        moe_intermediate_size=keys.get("moe_intermediate_size", as_pair, REQUIRED if flat else (1536, 512)),
        moe_k=size("moe_k"),
        moe_num_shared_experts=keys.get("moe_num_shared_experts", as_int, default.moe_num_shared_experts),
        moe_norm_min=keys.get("moe_norm_min", as_float, default.moe_norm_min),
        mlp_layer_types=layer_types or _layer_types_from_range(keys, num_layers),
    )


def _flat_rope(keys: Keys, head_dim: int) -> tuple[float, tuple[int, int, int]]:
    """freq_allocation pairs (the slowest) go to time, the others in turn to height and width."""
    theta = keys.get("rope_theta", as_float, 500000.0)
    time = keys.get("freq_allocation", as_int, 20)
    space = head_dim // 2 - time
    if space < 0 or space % 2:
        keys.problems.append(
            f"freq_allocation is {time} of {head_dim // 2} rotary pairs; the rest must divide by two (height, width)"
        )
    return theta, (space // 2, space // 2, time)


def _nested_rope(keys: Keys) -> tuple[float, tuple[int, int, int]]:
    # transformers 4 wrote rope_theta and rope_scaling where 5 writes rope_parameters.
    theta = keys.get("rope_theta", as_float, 500000.0)
    keys.seen |= {"rope_parameters", "rope_scaling"}
    raw = keys.raw.get("rope_parameters") or keys.raw.get("rope_scaling") or {}
    rope = Keys(raw, keys.path("rope_parameters"), keys.problems)
    kind = rope.get("rope_type", as_str, "default", "type")
    if kind != "default":
        keys.problems.append(f"{rope.path('rope_type')} is {kind!r}: scaled rotary positions are not implemented")
    section = rope.get("mrope_section", as_section, (22, 22, 20))
    theta = rope.get("rope_theta", as_float, theta)
    rope.finish({"partial_rotary_factor": Refusal(lambda v: v in (None, 1, 1.0), "not implemented")}, frozenset())
    return theta, section


def _vision(raw: object, problems: Problems) -> Ernie4_5_VLMoeVisionConfig:
    keys = Keys(raw, "vision_config", problems)
    default = Ernie4_5_VLMoeVisionConfig()
    hidden_size = keys.get("hidden_size", as_int, default.hidden_size, "embed_dim")
    embed_dim = keys.get("embed_dim", as_int, hidden_size)
    if embed_dim != hidden_size:
        problems.append(f"vision_config.embed_dim is {embed_dim} but hidden_size is {hidden_size}; they must be equal")
    ratio = keys.get("mlp_ratio", as_ratio, 4.0)
    keys.seen.add("rope_parameters")
    rope = Keys(
        raw.get("rope_parameters") or {} if isinstance(raw, dict) else {}, "vision_config.rope_parameters", problems
    )
    kind = rope.get("rope_type", as_str, "axial")
    if kind != "axial":
        problems.append(f"vision_config.rope_parameters.rope_type is {kind!r}: only axial positions are implemented")
    theta = rope.get("rope_theta", as_float, keys.get("rope_theta", as_float, default.rope_theta))
    rope.finish({}, frozenset())
    config = Ernie4_5_VLMoeVisionConfig(
        depth=keys.get("depth", as_int, default.depth, "num_hidden_layers"),
        hidden_size=hidden_size,
        intermediate_size=keys.get("intermediate_size", as_int, round(hidden_size * ratio)),
        num_heads=keys.get("num_heads", as_int, default.num_heads, "num_attention_heads"),
        in_channels=keys.get("in_channels", as_int, default.in_channels, "in_chans"),
        patch_size=keys.get("patch_size", as_int, default.patch_size),
        spatial_merge_size=keys.get("spatial_merge_size", as_int, default.spatial_merge_size),
        temporal_merge_size=keys.get("temporal_merge_size", as_int, default.temporal_merge_size),
        rms_norm_eps=keys.get("rms_norm_eps", as_float, default.rms_norm_eps),
        rope_theta=theta,
    )
    keys.finish(REFUSED_VISION, HARMLESS | HARMLESS_VISION)
    return config


def _flat(raw: dict[str, Any], problems: Problems) -> Ernie4_5_VLMoeConfig:
    keys = Keys(raw, "", problems)
    text = _text(keys, flat=True)
    keys.seen.add("vision_config")
    if "vision_config" not in raw:
        problems.append("vision_config is missing")
        problems.guessed = True
    vision = _vision(raw.get("vision_config", {}), problems)
    for key, value in (
        ("pixel_hidden_size", vision.hidden_size),
        ("spatial_conv_size", vision.spatial_merge_size),
        ("temporal_conv_size", vision.temporal_merge_size),
    ):
        if (stated := keys.get(key, as_int, value)) != value:
            problems.append(f"{key} is {stated} but vision_config makes it {value}")
    return _whole(keys, text, vision)


def _nested(raw: dict[str, Any], problems: Problems) -> Ernie4_5_VLMoeConfig:
    text_keys = Keys(raw["text_config"], "text_config", problems)
    text = _text(text_keys, flat=False)
    # The token ids and the tie may stand in either place; the top level wins.
    text_keys.seen |= {"bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"}
    text_keys.finish(REFUSED, HARMLESS)
    keys = Keys({k: v for k, v in text_keys.raw.items() if k.endswith("_token_id")} | raw, "", problems)
    keys.seen |= {"text_config", "vision_config"}
    return _whole(keys, text, _vision({} if raw.get("vision_config") is None else raw["vision_config"], problems))


def _whole(keys: Keys, text: Ernie4_5_VLMoeTextConfig, vision: Ernie4_5_VLMoeVisionConfig) -> Ernie4_5_VLMoeConfig:
    default = Ernie4_5_VLMoeConfig()
    image_token_id = keys.get("im_patch_id", as_int, default.image_token_id, "image_token_id")
    # The original code knows one placeholder for pictures and videos; transformers gives videos their own. Where the
    # config is silent we take transformers', if the vocabulary has it: the embedding row is overwritten either way.
    video_default = default.video_token_id if default.video_token_id < text.vocab_size else image_token_id
    keys.seen.add("quantization_config")
    quantization, reasons = parse_quantization(keys.raw.get("quantization_config"))
    keys.problems.listed.extend(reasons)
    config = Ernie4_5_VLMoeConfig(
        text_config=text,
        vision_config=vision,
        quantization=quantization,
        image_token_id=image_token_id,
        image_start_token_id=keys.get("image_start_token_id", as_int, default.image_start_token_id),
        image_end_token_id=keys.get("image_end_token_id", as_int, default.image_end_token_id),
        video_token_id=keys.get("video_token_id", as_int, video_default),
        video_start_token_id=keys.get("video_start_token_id", as_int, default.video_start_token_id),
        video_end_token_id=keys.get("video_end_token_id", as_int, default.video_end_token_id),
        bos_token_id=keys.get("bos_token_id", as_int, default.bos_token_id),
        eos_token_id=keys.get("eos_token_id", as_ids, default.eos_token_id),
        pad_token_id=keys.get("pad_token_id", as_int, default.pad_token_id),
        tie_word_embeddings=keys.get("tie_word_embeddings", as_bool, default.tie_word_embeddings),
        dtype=keys.get("dtype", as_str, default.dtype, "torch_dtype"),
    )
    keys.finish(REFUSED, HARMLESS)
    return config
