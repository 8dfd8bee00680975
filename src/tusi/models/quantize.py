"""A checkpoint quantised tensor by tensor into a new folder; a run that was stopped goes on where it was.

In: a folder with a plain checkpoint, a format. Out: a folder in compressed-tensors' `pack-quantized` layout, and a
report of what became what. Which tensor takes which format is `quantize_plan`'s to say. Memory: one tensor at a time,
or what `calibration` says.
The folder becomes a checkpoint in one step, when config.json is written last. Knows nothing of the forward pass.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tusi.core.errors import CheckpointError, ConfigError
from tusi.kernels import f32_to_bf16
from tusi.models.calibration import STATE_FILE, CalibrationSamples
from tusi.models.checkpoint import INDEX_FILE, Checkpoint
from tusi.models.checkpoint_writer import DEFAULT_MAX_SHARD_BYTES
from tusi.models.config_io import read_config_json
from tusi.models.hub import is_wanted
from tusi.models.parameters import to_float32
from tusi.models.quantization import quantization_config
from tusi.models.quantize_plan import Plan, Shard, Step, make_plan
from tusi.models.quantize_record import QuantizeRecord, file_sha256, source_fingerprint
from tusi.models.quantize_rounding import Rounding
from tusi.models.safetensors_io import Array, atomic_write, write_safetensors
from tusi.quant.packed import pack_words
from tusi.quant.search import Bits
from tusi.quant.weights import NotFiniteError

Progress = Callable[[str, int, int], None]
"""Called with a tensor's name once it is done, the source bytes done so far and all there are."""


def quantize_checkpoint(
    source: str | Path,
    out: str | Path,
    *,
    bits: Bits,
    group_size: int = 32,
    portable: bool = False,
    max_shard_bytes: int = DEFAULT_MAX_SHARD_BYTES,
    calibration: CalibrationSamples | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Quantise the decoder of a checkpoint to `bits`, the rest as `quantize_plan` says; returns what was done.

    calibration: samples for whose inputs the decoder's matrices are to err least (`models.calibration`); embedding,
    head and vision tower have 8 bits, where it would win nothing that shows.
    portable: write only what vLLM reads too (`quantize_plan.make_plan`).
    Raises ConfigError if `out` is neither empty nor a stopped run of the same source and options or cannot be written,
    if the disk is too small or the source is quantised already; CheckpointError if the source is unsound.
    """
    source, out = Path(source), Path(out)
    if bits not in (4, 8):
        raise ConfigError(f"the weights are to have {bits} bits; expected 4 or 8. Choose one of these.")
    if group_size not in (32, 64):
        raise ConfigError(f"the group size is {group_size}; expected 32 or 64. 32 is finer, 64 takes 0.5 bit less.")
    checkpoint = Checkpoint(source)
    if checkpoint.config.quantization is not None:
        raise ConfigError(
            f"{source} is already quantised (to {checkpoint.config.quantization.weight_format}). Quantising twice adds "
            "the errors of both: give the bf16 checkpoint it was made from."
        )
    by_layer = calibration is not None
    plan = make_plan(checkpoint, bits, group_size, max_shard_bytes, portable=portable, by_layer=by_layer)
    options: dict[str, Any] = {
        "bits": bits,
        "group_size": group_size,
        "portable": portable,
        "max_shard_bytes": max_shard_bytes,
    }
    if calibration is not None:
        options["calibration"] = calibration.digest
    with _writing(out):
        record = QuantizeRecord.open(out, source_fingerprint(checkpoint), options)
        rounding = Rounding(checkpoint, group_size, calibration, out)
        _write_shards(checkpoint, out, plan, record, rounding, progress)
        _finish(source, out, checkpoint, plan)
        (out / STATE_FILE).unlink(missing_ok=True)
        record.remove()
    return replace(plan, uncalibrated=record.uncalibrated)


def _write_shards(
    checkpoint: Checkpoint, out: Path, plan: Plan, record: QuantizeRecord, rounding: Rounding, progress: Progress | None
) -> None:
    """Those that are not there yet; each is noted once it is whole."""
    # Verified before anything is promised: a shard that changed since is made again.
    finished = {shard.file for shard in plan.shards if record.is_sound(shard.file)}
    record.clean_partials()
    _check_disk(out, sum(shard.nbytes for shard in plan.shards if shard.file not in finished))
    tell = _Teller(progress, sum(shard.source_bytes for shard in plan.shards))
    rounding.tell = tell.meanwhile
    # Read before anything is written: samples that cannot be used leave no begun run behind.
    rounding.prepare(step for shard in plan.shards if shard.file not in finished for step in shard.steps)
    out.mkdir(parents=True, exist_ok=True)
    record.save()
    before = 0
    for shard in plan.shards:
        if shard.file in finished:
            tell.done(shard.file, before + shard.source_bytes)
        else:
            rounding.uncalibrated.clear()
            data = _shard_data(checkpoint, shard, rounding, before, tell.done)
            write_safetensors(out / shard.file, shard.tensors, data)
            rounding.end_shard()
            record.add(shard.file, file_sha256(out / shard.file), rounding.uncalibrated)
        before += shard.source_bytes


class _Teller:
    """Reports progress, if anybody wants it."""

    def __init__(self, report: Progress | None, total: int) -> None:
        self._report = report
        self._total = total
        self._at = 0

    def done(self, name: str, at: int) -> None:
        """A tensor or file is done, and with it so many of the source's bytes."""
        self._at = at
        self.meanwhile(name)

    def meanwhile(self, what: str) -> None:
        """What is going on while nothing gets done."""
        if self._report:
            self._report(what, self._at, self._total)


def _shard_data(
    checkpoint: Checkpoint, shard: Shard, rounding: Rounding, done: int, count: Callable[[str, int], None]
) -> Iterator[Array]:
    for step in shard.steps:
        yield from _step_data(checkpoint, step, rounding)
        done += step.source_bytes
        count(step.name, done)


def _step_data(checkpoint: Checkpoint, step: Step, rounding: Rounding) -> Iterator[Array]:
    """The tensors of one step, in the order of `step.tensors`."""
    array = checkpoint.disk(step.disk)
    if step.bits is None:
        if step.tensors[0].dtype == "BF16" and array.dtype != np.uint16:
            array = f32_to_bf16(to_float32(array))
        yield array
        return
    matrix = array if array.dtype == np.uint16 else to_float32(array)
    try:
        q_NK, scales_NG = rounding.quantize(step, matrix)
    except NotFiniteError as error:
        raise CheckpointError(
            f"{step.name} holds NaN or infinite values, so it cannot be quantised. The file is damaged or the training "
            "run that wrote it diverged; download or export it again."
        ) from error
    yield pack_words(q_NK, step.bits)
    yield scales_NG
    yield np.array(q_NK.shape, "<i8")


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Reading the source raises CheckpointError by itself, so that what the system says here is about `out`."""
    try:
        yield
    except OSError as error:
        advice = "Check the path and its permissions"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "Free some space"
        raise ConfigError(
            f"{out} cannot be written ({error.strerror or error}); what is finished there is kept. {advice}, then run "
            "the same command again to go on."
        ) from error


def _check_disk(out: Path, needed: int) -> None:
    existing = next(parent for parent in (out.absolute(), *out.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ConfigError(
            f"{out} needs {needed / 1e9:.2f} GB more, and the disk has {free / 1e9:.2f} GB free. Free some space, or "
            "write to another disk; what is finished there is kept."
        )


def _finish(source: Path, out: Path, checkpoint: Checkpoint, plan: Plan) -> None:
    """Everything but the weights; config.json last, because it makes the folder a checkpoint."""
    if len(plan.shards) > 1:
        weight_map = {tensor.name: shard.file for shard in plan.shards for tensor in shard.tensors}
        index = {"metadata": {"total_size": sum(s.nbytes for s in plan.shards)}, "weight_map": weight_map}
        _write(out / INDEX_FILE, json.dumps(index, indent=2).encode())
    for path in sorted(source.iterdir()):
        weights = path.suffix == ".safetensors" or path.name in (INDEX_FILE, "config.json")
        if path.is_file() and not weights and is_wanted(path.name):
            _write(out / path.name, path.read_bytes())
    raw = read_config_json(source)
    assert isinstance(raw, dict)  # the checkpoint was opened with it
    raw |= {
        "tie_word_embeddings": checkpoint.config.tie_word_embeddings,
        "quantization_config": quantization_config(plan.quantization),
    }
    _write(out / "config.json", json.dumps(raw, indent=2, ensure_ascii=False).encode())


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)
