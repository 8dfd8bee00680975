"""What loading refuses, and what it takes from the files beside the weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tusi.backends.local.generation_config import GenerationConfig
from tusi.backends.local.loading import load_frontend, load_weights, model_folder, with_model_len
from tusi.core import machine
from tusi.core.errors import CheckpointError, ConfigError
from tusi.engine.config import EngineConfig
from tusi.models.moe import MoeBlock
from tusi.models.pack import pack_checkpoint
from tusi.models.random_checkpoint import write_random_checkpoint

ENGINE = EngineConfig(max_model_len=64)


def write(folder: Path, value: object) -> Path:
    (folder / "generation_config.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def test_sampling_settings_and_ends_are_read(tmp_path: Path) -> None:
    config = GenerationConfig.from_pretrained(
        write(
            tmp_path, {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "eos_token_id": [2, 9], "max_length": 20}
        )
    )
    assert config.eos_token_ids == (2, 9)
    assert (config.sampling_params.temperature, config.sampling_params.top_p) == (0.6, 0.95)
    assert config.sampling_params.max_tokens is None, "transformers' default length is not taken over"


def test_greedy_unless_it_samples(tmp_path: Path) -> None:
    assert GenerationConfig.from_pretrained(tmp_path).sampling_params.temperature == 1.0
    assert GenerationConfig.from_pretrained(write(tmp_path, {"temperature": 0.6})).sampling_params.temperature == 0.0


@pytest.mark.parametrize("value", ["{", "[1]", {"eos_token_id": "two"}, {"do_sample": True, "temperature": -1}])
def test_a_damaged_file_is_refused_with_advice(tmp_path: Path, value: object) -> None:
    with pytest.raises(CheckpointError, match="Correct it, download it again, or delete it"):
        GenerationConfig.from_pretrained(write(tmp_path, value))


def test_every_end_that_any_file_names_ends(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_folder, folder)
    write(folder, {"eos_token_id": 11})
    frontend = load_frontend(folder, name="copy")
    assert set(frontend.eos_token_ids) == {2, 11, frontend.tokenizer.token_to_id("<|end_of_sentence|>")}


def test_what_does_not_fit_is_refused_before_a_weight_is_read(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(total=2**20, available=2**20, limit=None))
    with pytest.raises(ConfigError, match=r"takes 0\.\d GiB of memory .* Choose a smaller dtype"):
        load_weights(tiny_folder, dtype="bf16", engine_config=EngineConfig(max_model_len=64))


def test_the_kv_cache_counts(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(total=2**33, available=2**30, limit=None))
    load_weights(tiny_folder, dtype="bf16", engine_config=EngineConfig(max_model_len=64))
    with pytest.raises(ConfigError, match="are free here"):
        load_weights(tiny_folder, dtype="bf16", engine_config=EngineConfig(max_model_len=64, kv_cache_bytes=2**31))


def test_the_context_is_at_most_the_models(tiny_folder: Path) -> None:
    config = load_frontend(tiny_folder, name="x").config
    assert with_model_len(EngineConfig(), None, config).max_model_len == config.text_config.max_position_embeddings
    assert with_model_len(EngineConfig(), 100, config).max_model_len == 100
    with pytest.raises(ConfigError, match="Choose 8192 or less"):
        with_model_len(EngineConfig(), 8193, config)


def test_random_says_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with model_folder("random") as folder:
        assert (folder / "config.json").is_file()
    assert "RANDOM WEIGHTS" in caplog.text
    assert not folder.exists()


@pytest.mark.parametrize("is_packed", [False, True])
def test_activations_are_taken_as_asked(tmp_path: Path, is_packed: bool) -> None:
    folder = write_random_checkpoint(tmp_path / "model")
    if is_packed:
        pack_checkpoint(folder, "int4")
    for asked in (None, "int8", "float32"):
        model = load_weights(folder, dtype="int4", engine_config=ENGINE, activations=asked)  # type: ignore[arg-type]
        layer = model.language_model.layers[1]
        assert isinstance(layer.mlp, MoeBlock)
        seen = {
            model.lm_head.activations,
            layer.self_attn.qkv_proj.activations,
            layer.mlp.text_moe.gate_up_proj.first.activations,
            layer.mlp.text_moe.gate_up_proj[1].activations,
        }
        assert seen == {asked or "int8"}


def test_activations_that_no_product_rounds_are_refused(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "model")
    for _ in ("as it is", "packed"):
        load_weights(folder, dtype="bf16", engine_config=ENGINE, activations="float32")
        with pytest.raises(ConfigError, match=r"the weights are bf16.*Choose a dtype of int8 or int4"):
            load_weights(folder, dtype="bf16", engine_config=ENGINE, activations="int8")
        pack_checkpoint(folder, "bf16")
    with pytest.raises(ConfigError, match="activations are 'int4'; choose one of int8, float32"):
        load_weights(folder, dtype="int4", engine_config=ENGINE, activations="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="weight_memory is 'huge'; choose one of anonymous, mmap"):
        load_weights(folder, dtype="int4", engine_config=ENGINE, weight_memory="huge")  # type: ignore[arg-type]
