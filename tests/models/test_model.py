"""The whole model: formats, chunked and batched runs over a paged cache, progress, refusals."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.prompts import Prompt, build_prompt
from tusi.core.errors import CheckpointError, ConfigError, RequestError
from tusi.core.types import WeightFormat
from tusi.kernels import f32_to_bf16
from tusi.models.attention_metadata import AttentionMetadata, LayerKVCache
from tusi.models.checkpoint import Checkpoint
from tusi.models.checkpoint_writer import save_checkpoint
from tusi.models.full_sequence import full_sequence_logits, new_kv_caches
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration as Model
from tusi.models.random_checkpoint import TINY_TEXT, random_tensors, tiny_config, write_random_checkpoint
from tusi.quant.weights import Weight

SEGMENTS = (9, ("image", (1, 4, 6)), 5, ("video", (4, 2, 4)), 8)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Model:
    return Model.from_pretrained(tiny_model, "fp32")


@pytest.fixture(scope="module")
def prompt(model: Model) -> Prompt:
    return build_prompt(model.config, SEGMENTS)


def embeddings(model: Model, prompt: Prompt) -> np.ndarray:
    embeds_TD = model.embed(prompt.input_ids)
    for medium in prompt.media:
        features = model.get_media_features(medium.pixel_values, medium.grid_thw)
        embeds_TD[medium.offset : medium.offset + medium.length] = features
    return embeds_TD


@pytest.mark.parametrize("chunk", [1, 3, 7, 16])
def test_chunks_over_scattered_blocks_equal_one_pass(model: Model, prompt: Prompt, chunk: int) -> None:
    tokens, block_size = len(prompt.input_ids), 4
    blocks = np.random.default_rng(1).permutation(40)[: -(-tokens // block_size)].astype(np.int32)
    shapes = (40, 2, 16, block_size), (40, 2, block_size, 16)
    caches = [LayerKVCache(*(np.full(shape, 7, np.float32) for shape in shapes)) for _ in range(2)]
    embeds_TD = embeddings(model, prompt)
    rows = []
    for begin in range(0, tokens, chunk):
        end = min(begin + chunk, tokens)
        positions = np.arange(begin, end)
        attn = AttentionMetadata(
            query_start_loc_R1=np.array([0, end - begin], np.int32),
            seq_lens_R=np.array([end], np.int32),
            block_table_RB=blocks[None],
            slot_mapping_T=blocks[positions // block_size].astype(np.int64) * block_size + positions % block_size,
        )
        hidden_TD = model.forward(
            embeds_TD[begin:end],
            np.ascontiguousarray(prompt.position_ids[:, begin:end]),
            prompt.moe_mm_token_type_ids[begin:end] != 0,
            attn,
            caches,
        )
        rows.append(model.compute_logits(hidden_TD))
    np.testing.assert_allclose(np.concatenate(rows), full_sequence_logits(model, prompt), atol=1e-4)


def test_requests_in_one_batch_do_not_see_each_other(model: Model) -> None:
    prompts = [build_prompt(model.config, (n, ("image", (1, 2, 4)), 2), seed=n) for n in (3, 6)]
    lengths = [len(prompt.input_ids) for prompt in prompts]
    caches = new_kv_caches(model.config.text_config, 64)
    attn = AttentionMetadata(
        query_start_loc_R1=np.array([0, lengths[0], sum(lengths)], np.int32),
        seq_lens_R=np.array(lengths, np.int32),
        block_table_RB=np.array([[2], [0]], np.int32),
        slot_mapping_T=np.concatenate([32 + np.arange(lengths[0]), np.arange(lengths[1])]),
    )
    hidden_TD = model.forward(
        np.concatenate([embeddings(model, prompt) for prompt in prompts]),
        np.concatenate([prompt.position_ids for prompt in prompts], axis=1),
        np.concatenate([prompt.moe_mm_token_type_ids for prompt in prompts]) != 0,
        attn,
        caches,
    )
    expected = np.concatenate([full_sequence_logits(model, prompt) for prompt in prompts])
    np.testing.assert_allclose(model.compute_logits(hidden_TD), expected, atol=1e-4)


def test_frames_of_a_video_are_seen_one_by_one_by_the_tower_and_in_pairs_after_it(model: Model) -> None:
    pixels = build_prompt(model.config, (("video", (4, 2, 4)),)).media[0].pixel_values
    features = model.get_media_features(pixels, (4, 2, 4))
    assert len(features) == model.config.num_media_tokens((4, 2, 4)) == 4
    first_pair = model.get_media_features(pixels[:16], (2, 2, 4))
    np.testing.assert_allclose(features[:2], first_pair, atol=1e-5)
    # A picture is a frame paired with itself.
    twice = model.get_media_features(np.concatenate([pixels[:8]] * 2), (2, 2, 4))
    np.testing.assert_allclose(model.get_media_features(pixels[:8], (1, 2, 4)), twice, atol=1e-5)


# Relative error (root mean square, over the deviation of the logits) that rounding alone explains in a model of two
# layers without a discrete choice (every expert is taken, so rounding cannot change a route):
#   bf16: 2^-9 of a value at most, 0.1 % a product, about ten products on the way and in the residual: measured 0.8 %
#   int8: a step is max/127 of a group of 32, 0.5 % of a value's deviation a product: measured 2.5 %
#   int4: 18 times coarser than int8 (127/7) in the decoder, int8 elsewhere: measured 31 %
ERROR_BOUNDS: dict[WeightFormat, tuple[float, float]] = {
    "bf16": (0.001, 0.015),
    "int8": (0.005, 0.05),
    "int4": (0.05, 0.45),
}


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Prompt, np.ndarray]:
    """A float32 checkpoint that takes every expert, a prompt, its logits."""
    config = replace(tiny_config(text=replace(TINY_TEXT, moe_k=8)), dtype="float32")
    folder = write_random_checkpoint(tmp_path_factory.mktemp("formats") / "m", config=config)
    prompt = build_prompt(config, (20, ("image", (1, 6, 6)), 20))
    return folder, prompt, full_sequence_logits(Model.from_pretrained(folder, "fp32"), prompt)


@pytest.mark.parametrize("format_", ERROR_BOUNDS)
def test_formats_err_as_much_as_their_rounding(format_: WeightFormat, exact: tuple[Path, Prompt, np.ndarray]) -> None:
    folder, prompt, expected = exact
    logits = full_sequence_logits(Model.from_pretrained(folder, format_), prompt)
    error = np.sqrt(np.mean((logits - expected) ** 2)) / expected.std()
    low, high = ERROR_BOUNDS[format_]
    assert low < error < high


def test_bf16_loses_nothing_of_a_bf16_checkpoint(tiny_model: Path, model: Model, prompt: Prompt) -> None:
    logits = full_sequence_logits(Model.from_pretrained(tiny_model, "bf16"), prompt)
    np.testing.assert_allclose(logits, full_sequence_logits(model, prompt), atol=1e-4)


def test_each_kind_of_matrix_takes_its_format(tiny_model: Path) -> None:
    model = Model.from_pretrained(tiny_model, "int4", group_size=16)
    layer = model.language_model.layers[1]

    def formats(*weights: Weight) -> set[str]:
        return {weight.format for weight in weights}

    assert formats(
        layer.self_attn.qkv_proj, layer.mlp.text_moe.gate_up_proj[0], layer.mlp.shared_experts.down_proj
    ) == {"int4"}
    block = model.vision_tower.blocks[0]
    assert formats(model.embed_tokens, model.lm_head, block.mlp.fc1.weight, model.resampler_model.mlp.weight) == {
        "int8"
    }
    assert formats(model.vision_tower.patch_embed) == {"bf16"}
    assert layer.mlp.text_moe.gate.weight_ED.dtype == np.float32
    assert layer.self_attn.qkv_proj.arrays[1].shape[1] == 64 // 16


def test_a_tied_head_is_the_embedding_in_every_format(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "m", config=tiny_config(tie_word_embeddings=True))
    for format_ in ("bf16", "int8"):
        model = Model.from_pretrained(folder, format_)
        assert model.lm_head is model.embed_tokens


def test_progress_reaches_the_end(tiny_model: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    Model.from_pretrained(tiny_model, progress=lambda *call: calls.append(call))
    names, done, totals = zip(*calls, strict=True)
    assert set(names) == set(Checkpoint(tiny_model))
    assert list(done) == sorted(done)
    assert done[-1] == totals[0] == sum(array.nbytes for array in Checkpoint(tiny_model).values())


@pytest.mark.parametrize("format_", ["bf16", "int4"])
def test_loading_holds_one_tensor_at_a_time_beside_the_model(format_: WeightFormat, tmp_path: Path) -> None:
    text = replace(TINY_TEXT, moe_num_experts=48, moe_intermediate_size=(16, 384))
    folder = write_random_checkpoint(tmp_path / "m", config=tiny_config(text=text))
    checkpoint = Checkpoint(folder)
    tracemalloc.start()
    try:
        model = Model.from_tensors(checkpoint.config, checkpoint, format_)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The vision experts come near the end and are most of the model: a whole stack held twice would show.
    assert peak - held < 700_000 < held
    assert model.dtype == format_


def test_a_loaded_model_does_not_read_its_files_again(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "m")
    for format_ in ("fp32", "bf16", "int8"):
        model = Model.from_pretrained(folder, format_)
        gc.collect()
        path = folder / "model.safetensors"
        content = path.read_bytes()
        prompt = build_prompt(model.config, (5, ("image", (1, 2, 2)), 1))
        before = full_sequence_logits(model, prompt)
        with path.open("r+b") as file:
            file.write(b"\xff" * len(content))
        np.testing.assert_array_equal(full_sequence_logits(model, prompt), before)
        path.write_bytes(content)


def test_a_damaged_matrix_is_not_quantised(tmp_path: Path) -> None:
    config = tiny_config()
    name = "model.language_model.layers.0.self_attn.k_proj.weight"
    tensors = random_tensors(config, 0)
    damaged = np.full(tensors[name].shape, np.inf, np.float32)
    save_checkpoint(tmp_path / "m", config, tensors | {name: f32_to_bf16(damaged)})
    with pytest.raises(CheckpointError, match=r"k_proj\.weight holds NaN or infinite values.*int8.*export it again"):
        Model.from_pretrained(tmp_path / "m", "int8")


def test_unknown_formats_are_refused(tiny_model: Path) -> None:
    with pytest.raises(ConfigError, match="'fp16' is unknown; expected fp32, bf16, int8 or int4"):
        Model.from_pretrained(tiny_model, "fp16")  # type: ignore[arg-type]


@pytest.mark.parametrize("ids", [[-1], [5, 10**6]])
def test_ids_outside_the_vocabulary_are_refused(model: Model, ids: list[int]) -> None:
    with pytest.raises(RequestError, match=r"token ids run from .*Tokenize with the tokenizer of this checkpoint"):
        model.embed(ids)


@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        ((8, 588), (1, 2, 2)),
        ((4, 587), (1, 2, 2)),
        ((6, 588), (1, 2, 3)),
        ((12, 588), (3, 2, 2)),
        ((0, 588), (1, 0, 2)),
        ((4, 588), (-1, -2, 2)),
    ],
)
def test_pixels_that_do_not_fit_their_grid_are_refused(
    model: Model, shape: tuple[int, int], grid: tuple[int, int, int]
) -> None:
    with pytest.raises(RequestError, match=r"patch grid.*Make them with the processor"):
        model.get_media_features(np.zeros(shape, np.float32), grid)
