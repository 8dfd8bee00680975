"""Quantising a checkpoint: what is written, what is read back, how far it is off, and how a stopped run goes on."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests.fixtures.prompts import build_prompt
from tusi import kernels
from tusi.core.errors import CheckpointError, ConfigError
from tusi.models import quantize as quantize_module
from tusi.models.checkpoint import SINGLE_FILE, Checkpoint
from tusi.models.checkpoint_writer import save_checkpoint
from tusi.models.config_io import load_config
from tusi.models.full_sequence import full_sequence_logits
from tusi.models.memory_estimate import checkpoint_bytes, estimate_memory
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration as Model
from tusi.models.parameters import format_of
from tusi.models.quantize import quantize_checkpoint
from tusi.models.quantize_record import RECORD_FILE
from tusi.models.random_checkpoint import TINY_TEXT, TINY_VISION, tiny_config, with_layers, write_random_checkpoint
from tusi.quant.search import Bits, quantize_searched
from tusi.quant.weights import Int4Weight, Int8Weight

EXPERT = "model.layers.1.mlp.experts.3.gate_proj.weight"


@pytest.fixture(scope="module", params=[4, 8])
def pair(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A plain checkpoint, the quantised one, its bits."""
    out = tmp_path_factory.mktemp("quantized") / "q"
    quantize_checkpoint(tiny_model, out, bits=request.param)
    return tiny_model, out, request.param


def test_codes_are_read_as_they_were_chosen(pair: tuple[Path, Path, Bits]) -> None:
    source, out, bits = pair
    plain, quantized = Checkpoint(source), Checkpoint(out)
    assert replace(quantized.config, quantization=None) == plain.config
    asked = "int4" if bits == 4 else "int8"
    for spec in plain.specs.values():
        wanted = "bf16" if spec.component == "resampler" else format_of(spec.kind, asked)
        number = 2 if len(spec.shape) == 3 else None
        weight = quantized.packed(spec.name, number)
        if wanted in ("fp32", "bf16"):
            assert weight is None
            np.testing.assert_array_equal(quantized[spec.name], plain[spec.name])  # as stored
            continue
        assert isinstance(weight, Int4Weight if wanted == "int4" else Int8Weight)
        original = plain[spec.name] if number is None else plain.expert(spec.name, number)
        q_NK, scales_NG = quantize_searched(original, 4 if wanted == "int4" else 8, 32)
        scales = np.repeat(kernels.bf16_to_f32(scales_NG), 32, axis=1)[:, : q_NK.shape[1]]
        np.testing.assert_array_equal(weight.to_f32(), q_NK * scales)


def test_the_layout_is_that_of_compressed_tensors(pair: tuple[Path, Path, Bits]) -> None:
    _, out, bits = pair
    tensors = {name: info for file in Checkpoint(out)._files.values() for name, info in file[0].tensors.items()}
    words, scales, shape = (tensors[EXPERT + end] for end in ("_packed", "_scale", "_shape"))
    assert (words.dtype, words.shape) == ("I32", (48, 64 * bits // 32))
    assert (scales.dtype, scales.shape) == ("BF16", (48, 2))
    assert (shape.dtype, shape.shape) == ("I64", (2,))
    assert EXPERT not in tensors
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    assert (config["quant_method"], config["format"]) == ("compressed-tensors", "pack-quantized")
    weights = config["config_groups"]["group_0"]["weights"]
    assert config["config_groups"]["group_0"]["targets"] == ["Linear"]
    assert (weights["num_bits"], weights["group_size"], weights["strategy"]) == (bits, 32, "group")
    assert not (out / RECORD_FILE).exists()
    assert (out / "tokenizer.json").exists()


def test_sizes_are_known_before_loading(pair: tuple[Path, Path, Bits]) -> None:
    _, out, _ = pair
    config, checkpoint = load_config(out), Checkpoint(out)
    stored = sum(info.end - info.begin for info in checkpoint._files[EXPERT + "_packed"][0].tensors.values())
    assert checkpoint_bytes(config) == stored
    model = Model.from_pretrained(out)
    layer = model.language_model.layers[1].mlp.text_moe.gate_up_proj
    experts = layer.nbytes + model.language_model.layers[1].mlp.text_moe.down_proj.nbytes
    assert estimate_memory(config, model.dtype, context=1).weights["text experts"] == experts


# Relative to the deviation of the logits, mean of four models. Measured over eight: int4 27.6 % where rounding to
# nearest has 30.9 %, int8 2.07 % against 2.13 %. Every expert is taken, so that rounding changes no route.
@pytest.mark.parametrize(("bits", "bound"), [(4, 0.30), (8, 0.022)])
def test_logits_err_less_than_with_rounding_to_nearest(bits: Bits, bound: float, tmp_path: Path) -> None:
    config = replace(tiny_config(text=replace(TINY_TEXT, moe_k=8)), dtype="float32")
    prompt = build_prompt(config, (20, ("image", (1, 6, 6)), 20))
    errors = []
    for seed in range(4):
        folder = write_random_checkpoint(tmp_path / f"m{seed}", config=config, seed=seed)
        quantize_checkpoint(folder, tmp_path / f"q{seed}", bits=bits)
        exact = full_sequence_logits(Model.from_pretrained(folder, "fp32"), prompt)
        searched = Model.from_pretrained(tmp_path / f"q{seed}", activations="float32")
        nearest = Model.from_pretrained(folder, "int4" if bits == 4 else "int8", activations="float32")
        errors.append(
            [
                np.sqrt(np.mean((full_sequence_logits(m, prompt) - exact) ** 2)) / exact.std()
                for m in (searched, nearest)
            ]
        )
    searched_error, nearest_error = np.mean(errors, axis=0)
    assert searched_error <= bound
    assert searched_error < nearest_error


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    source = write_random_checkpoint(tmp_path / "m")
    out, whole = tmp_path / "out", tmp_path / "whole"
    quantize_checkpoint(source, whole, bits=4, max_shard_bytes=40_000)
    # Slow on purpose, so that the kill falls between the first file and the last.
    code = (
        "import sys, time\nfrom tusi.models.quantize import quantize_checkpoint\n"
        "quantize_checkpoint(sys.argv[1], sys.argv[2], bits=4, max_shard_bytes=40_000,"
        " progress=lambda *_: time.sleep(0.05))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(source), str(out)])
    deadline = time.monotonic() + 60
    while len(list(out.glob("model-*"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "config.json").exists()
    finished = {path.name: path.stat().st_mtime_ns for path in out.glob("model-*")}
    assert len(finished) >= 4
    # The last of them is damaged meanwhile: it is made again, the others are kept.
    recorded = json.loads((out / RECORD_FILE).read_text())["files"]
    assert len(recorded) >= 3
    damaged = sorted(recorded)[-1]
    with (out / damaged).open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"\x55\xaa")
    quantize_checkpoint(source, out, bits=4, max_shard_bytes=40_000)
    assert {p.name for p in out.iterdir()} == {p.name for p in whole.iterdir()}
    for path in whole.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    for name in sorted(recorded)[:-1]:
        assert (out / name).stat().st_mtime_ns == finished[name]


def test_the_config_says_of_each_matrix_what_was_stored(pair: tuple[Path, Path, Bits]) -> None:
    _, out, _ = pair
    checkpoint = Checkpoint(out)
    assert checkpoint.config.quantization is not None
    for spec in checkpoint.specs.values():
        for part in spec.parts:
            group = checkpoint.config.quantization.group_of(part.disk.removesuffix(".weight"), spec.kind)
            is_packed = part.disk + "_packed" in checkpoint._files
            assert is_packed == (group is not None), part.disk


def test_names_that_vllm_gives_to_modules_match_as_well(pair: tuple[Path, Path, Bits]) -> None:
    _, out, bits = pair
    quantization = load_config(out).quantization
    assert quantization is not None

    def bits_of(module: str) -> int | None:
        group = quantization.group_of(module, "matrix")
        return group.num_bits if group else None

    layer = "language_model.model.layers.1."
    assert bits_of(layer + "mlp.text_experts.0.gate_proj") == bits
    assert bits_of(layer + "self_attn.qkv_proj") == bits
    assert bits_of(layer + "mlp.text_experts_gate") is None
    assert bits_of(layer + "mlp.vision_experts_gate") is None
    assert bits_of("resampler_model.spatial_linear1") is None
    assert bits_of("vision_model.patch_embed.proj") is None
    assert bits_of("vision_model.blocks.0.attn.qkv") == 8
    assert bits_of("language_model.lm_head") == (8 if bits == 4 else None)
    assert bits_of("language_model.model.embed_tokens") == (8 if bits == 4 else None)


WHOLE_GROUPS = replace(TINY_TEXT, moe_intermediate_size=(64, 32), intermediate_size=128)


def test_portable_leaves_a_tied_embedding_plain(tmp_path: Path) -> None:
    config = tiny_config(text=WHOLE_GROUPS, vision=TINY_VISION, tie_word_embeddings=True)
    source = write_random_checkpoint(tmp_path / "m", config=config)
    quantize_checkpoint(source, tmp_path / "tied", bits=4)
    plan = quantize_checkpoint(source, tmp_path / "portable", bits=4, portable=True)
    embedding = "model.language_model.embed_tokens.weight"
    assert isinstance(Checkpoint(tmp_path / "tied").packed(embedding), Int8Weight)
    assert Checkpoint(tmp_path / "portable").packed(embedding) is None
    assert plan.ragged == 0
    assert [row.reason for row in plan.rows() if row.component == "token embedding"] == ["plain for vLLM"]
    assert Model.from_pretrained(tmp_path / "portable").embed_tokens.format == "bf16"


def test_portable_refuses_a_short_last_group(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"width of 16 matrices is no multiple of the group size 32, .*\. Take a smaller group size, or",
    ):
        quantize_checkpoint(tiny_model, tmp_path / "q", bits=4, portable=True)
    assert not (tmp_path / "q").exists()


def test_memory_is_that_of_a_few_tensors(tmp_path: Path) -> None:
    text = replace(TINY_TEXT, hidden_size=192, moe_num_experts=16, moe_intermediate_size=(256, 128))
    source = write_random_checkpoint(tmp_path / "m", config=tiny_config(text=with_layers(text, 3)))
    size = (source / SINGLE_FILE).stat().st_size
    tracemalloc.start()
    try:
        plan = quantize_checkpoint(source, tmp_path / "q", bits=4)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    largest = max(step.source_bytes for step in plan.steps)
    assert size > 50 * largest
    assert peak < 10 * largest + 2_000_000  # the search's blocks and the lists of tensors


def stop_after_first_file(monkeypatch: pytest.MonkeyPatch, source: Path, out: Path) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(quantize_module, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            quantize_checkpoint(source, out, bits=4)


def test_what_is_refused_and_the_advice(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"neither an empty folder nor a run .* Choose another folder"):
        quantize_checkpoint(tiny_model, full, bits=4)
    out = tmp_path / "out"
    stop_after_first_file(monkeypatch, tiny_model, out)
    with pytest.raises(ConfigError, match=r"other options .*'bits': 4.* Go on with the same source and options"):
        quantize_checkpoint(tiny_model, out, bits=8)
    other = write_random_checkpoint(tmp_path / "other", seed=7)
    with pytest.raises(ConfigError, match=r"another source.* or choose another folder"):
        quantize_checkpoint(other, out, bits=4)
    quantize_checkpoint(tiny_model, out, bits=4)
    with pytest.raises(ConfigError, match=r"already quantised \(to int4\).* give the bf16 checkpoint"):
        quantize_checkpoint(out, tmp_path / "twice", bits=4)
    with pytest.raises(ConfigError, match="group size is 48; expected 32 or 64"):
        quantize_checkpoint(tiny_model, tmp_path / "g", bits=4, group_size=48)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ConfigError, match=r"disk has 0\.00 GB free\. Free some space"):
        quantize_checkpoint(tiny_model, tmp_path / "small", bits=4)
    assert not (tmp_path / "small").exists()


def test_a_quantised_checkpoint_is_what_it_is(pair: tuple[Path, Path, Bits]) -> None:
    _, out, bits = pair
    stored = "int4" if bits == 4 else "int8"
    assert Model.from_pretrained(out).dtype == Model.from_pretrained(out, stored).dtype == stored
    with pytest.raises(ConfigError, match=f"stored quantised to {stored}.*Ask for auto or {stored}"):
        Model.from_pretrained(out, "bf16")
    with pytest.raises(CheckpointError, match=r"stored quantised in .* Take the checkpoint that it was quantised from"):
        Checkpoint(out)["lm_head.weight" if bits == 4 else "model.language_model.layers.0.self_attn.q_proj.weight"]


Tensors = dict[str, np.ndarray]


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    quantize_checkpoint(tiny_model, tmp_path / "copy", bits=4)
    return tmp_path / "copy"


def edit(folder: Path, change: Callable[[Tensors], None]) -> None:
    # bfloat16 is no NumPy type: the scales become float32, which are read as well.
    with safe_open(folder / SINGLE_FILE, "pt") as file:
        tensors = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118 - not a mapping
    arrays = {n: (t.float() if t.dtype == torch.bfloat16 else t).numpy().copy() for n, t in tensors.items()}
    change(arrays)
    save_file(arrays, folder / SINGLE_FILE)


def test_every_wrong_tensor_is_listed_at_once(copy: Path) -> None:
    def change(tensors: Tensors) -> None:
        del tensors[EXPERT + "_scale"]
        up = EXPERT.replace("gate", "up") + "_packed"
        tensors[up] = tensors[up][:, :-1].copy()
        tensors["model.norm.weight_packed"] = np.zeros((1, 1), np.int32)
        tensors["model.layers.0.self_attn.o_proj.weight_shape"] = np.zeros(2, np.float32)

    edit(copy, change)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(copy)
    for part in (
        f"missing: {EXPERT}_scale [48, 2]",
        "up_proj.weight_packed is [48, 7], expected [48, 8]",
        "o_proj.weight_shape is F32, expected I64",
        "model.norm.weight_packed is packed, but no group of quantization_config covers it",
    ):
        assert part in str(caught.value)


def test_a_shape_that_lies_is_noticed(copy: Path) -> None:
    edit(copy, lambda tensors: tensors.update({EXPERT + "_shape": np.array([48, 60])}))
    with pytest.raises(CheckpointError, match=r"weight_shape says \[48, 60\].*is \[48, 64\].*again"):
        Model.from_pretrained(copy)


def test_scales_of_float32_are_read_as_well(copy: Path) -> None:
    before = Checkpoint(copy).packed("lm_head.weight")
    edit(copy, lambda _: None)
    assert load_file(copy / SINGLE_FILE)["lm_head.weight_scale"].dtype == np.float32
    after = Checkpoint(copy).packed("lm_head.weight")
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before.to_f32(), after.to_f32())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symmetric": False}, "weights.symmetric is False; only True is implemented"),
        ({"strategy": "channel"}, "weights.strategy is 'channel'; only group is implemented"),
        ({"num_bits": 3}, "weights.num_bits is 3; only 4 or 8 is implemented"),
        ({"actorder": "group"}, "weights.actorder is 'group', which is not implemented"),
        ({"group_size": 0}, "weights.group_size is 0, not a whole number above 0"),
    ],
)
def test_other_quantisations_are_refused_with_the_reason(copy: Path, change: dict[str, Any], message: str) -> None:
    path = copy / "config.json"
    raw = json.loads(path.read_text())
    raw["quantization_config"]["config_groups"]["group_0"]["weights"] |= change
    path.write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=message):
        Checkpoint(copy)


def test_quantised_activations_are_refused(copy: Path) -> None:
    path = copy / "config.json"
    raw = json.loads(path.read_text())
    raw["quantization_config"]["config_groups"]["group_0"]["input_activations"] = {"num_bits": 8}
    path.write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match=r"input_activations is .*; only weights are quantised here"):
        Checkpoint(copy)


def test_a_damaged_source_is_named(tmp_path: Path) -> None:
    cut = write_random_checkpoint(tmp_path / "cut")
    with (cut / SINGLE_FILE).open("r+b") as file:
        file.truncate((cut / SINGLE_FILE).stat().st_size - 10)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a sound .* Download it again"):
        quantize_checkpoint(cut, tmp_path / "q", bits=4)
    assert not (tmp_path / "q").exists()
    diverged = write_random_checkpoint(tmp_path / "diverged", config=replace(tiny_config(), dtype="float32"))
    tensors = load_file(diverged / SINGLE_FILE)
    tensors[EXPERT][3, 5] = np.nan
    save_file(tensors, diverged / SINGLE_FILE)
    with pytest.raises(CheckpointError, match=rf"{EXPERT} holds NaN.*cannot be quantised.*download or export it again"):
        quantize_checkpoint(diverged, tmp_path / "q", bits=4)
    assert not (tmp_path / "q" / "config.json").exists()


def test_a_shard_cut_while_it_is_read_stops_the_run(tmp_path: Path) -> None:
    source = write_random_checkpoint(tmp_path / "m")

    def cut(*_: object) -> None:
        with (source / SINGLE_FILE).open("r+b") as file:
            file.truncate(200_000)

    with pytest.raises(CheckpointError, match=r"the file has been cut.* Download it again"):
        quantize_checkpoint(source, tmp_path / "q", bits=8, progress=cut)
    assert not list((tmp_path / "q").glob("*.safetensors"))
    assert not (tmp_path / "q" / "config.json").exists()


def test_a_disk_that_fills_up_leaves_a_run_to_go_on_with(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = quantize_module.write_safetensors
    written = []

    def full_after_two(path: Path, *args: Any) -> None:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, *args)
        written.append(path.name)

    with monkeypatch.context() as patch:
        patch.setattr(quantize_module, "write_safetensors", full_after_two)
        with pytest.raises(ConfigError, match=r"No space left.*is kept\. Free some space, then run the same command"):
            quantize_checkpoint(tiny_model, tmp_path / "q", bits=4, max_shard_bytes=40_000)
    before = [(tmp_path / "q" / name).stat().st_mtime_ns for name in written]
    assert not (tmp_path / "q" / "config.json").exists()
    quantize_checkpoint(tiny_model, tmp_path / "q", bits=4, max_shard_bytes=40_000)
    assert [(tmp_path / "q" / name).stat().st_mtime_ns for name in written] == before
    Checkpoint(tmp_path / "q")


def test_a_folder_that_cannot_be_made(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"cannot be written \(Not a directory\).* Check the path and its permissions"
    ):
        quantize_checkpoint(tiny_model, tmp_path / "file" / "q", bits=4)


def test_other_widths_of_codes_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="have 5 bits; expected 4 or 8"):
        quantize_checkpoint(tiny_model, tmp_path / "q", bits=5)  # type: ignore[arg-type]


def test_what_is_quantised_cannot_be_saved_as_plain(pair: tuple[Path, Path, Bits], tmp_path: Path) -> None:
    source, out, _ = pair
    with pytest.raises(ConfigError, match=r"Save from the plain checkpoint, then use `tusi quantize`"):
        save_checkpoint(tmp_path / "s", load_config(out), Checkpoint(source))
