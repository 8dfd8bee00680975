"""What quantising will do to each tensor, decided before the first one is read: formats, shards, bytes, reasons.

In: an opened plain checkpoint and the asked format. Out: a `Plan`, the same for the same input, so that a stopped run
can go on. Reads no tensor.

The formats are `parameters.format_of`'s, with one exception: the resampler stays as it is, because vLLM builds it
without quantisation and would pass over packed weights without a word.
"""

from __future__ import annotations

from dataclasses import dataclass

from tusi.core.errors import ConfigError
from tusi.core.types import WeightFormat
from tusi.models.checkpoint import SINGLE_FILE, Checkpoint
from tusi.models.key_table import Kind, TensorSpec
from tusi.models.packed_tensors import packed_names
from tusi.models.parameters import format_of
from tusi.models.quantization import Quantization, QuantizationGroup
from tusi.models.safetensors_io import TensorToWrite
from tusi.quant.packed import packed_width
from tusi.quant.search import Bits

_DTYPE_NAMES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
_REASONS: dict[Kind, str] = {
    "exact": "always exact",
    "patch": "small and first",
    "embedding": "one step finer",
    "head": "one step finer",
    "vision": "8 bits at least",
}
_PLAIN_ELSEWHERE = "plain for vLLM"


@dataclass(frozen=True, slots=True)
class Step:
    """One published tensor and what it becomes. bits None: stored plain."""

    name: str
    disk: str
    kind: Kind
    component: str
    bits: Bits | None
    is_ragged: bool
    stored_as: str
    source_bytes: int
    tensors: tuple[TensorToWrite, ...]
    reason: str

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class Shard:
    """One file to write."""

    file: str
    steps: tuple[Step, ...]

    @property
    def tensors(self) -> list[TensorToWrite]:
        return [tensor for step in self.steps for tensor in step.tensors]

    @property
    def nbytes(self) -> int:
        return sum(step.nbytes for step in self.steps)

    @property
    def source_bytes(self) -> int:
        return sum(step.source_bytes for step in self.steps)


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One line of the report: tensors of a component that are treated alike. reason: why not the asked format."""

    component: str
    stored_as: str
    becomes: str
    tensors: int
    source_bytes: int
    nbytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it. quantization: what config.json will say. is_head_tied: the embedding is the head as well."""

    shards: tuple[Shard, ...]
    quantization: Quantization
    is_head_tied: bool

    @property
    def steps(self) -> list[Step]:
        return [step for shard in self.shards for step in shard.steps]

    @property
    def ragged(self) -> int:
        """Matrices whose last group is short, which other readers of this layout refuse."""
        return sum(step.is_ragged for step in self.steps)

    def rows(self) -> list[PlanRow]:
        """What became what, by component, in the order of the files."""
        together: dict[tuple[str, str, str, str], list[Step]] = {}
        for step in self.steps:
            becomes = f"int{step.bits}" if step.bits else _DTYPE_NAMES[step.tensors[0].dtype]
            together.setdefault((step.component, step.stored_as, becomes, step.reason), []).append(step)
        return [
            PlanRow(*key[:3], len(steps), sum(s.source_bytes for s in steps), sum(s.nbytes for s in steps), key[3])
            for key, steps in together.items()
        ]


def make_plan(
    checkpoint: Checkpoint, bits: Bits, group_size: int, max_shard_bytes: int, *, portable: bool = False
) -> Plan:
    """Decide everything. The order is that of the published files.

    portable: only what vLLM reads as well: a tied embedding stays plain, and a matrix whose width `group_size` does not
    divide is a ConfigError.
    """
    asked: WeightFormat = "int4" if bits == 4 else "int8"
    is_tied = checkpoint.config.tie_word_embeddings
    steps: dict[str, Step] = {}
    for spec in checkpoint.specs.values():
        wanted, reason = format_of(spec.kind, asked), _REASONS.get(spec.kind, "")
        if wanted != "fp32" and (
            spec.component == "resampler" or (portable and is_tied and spec.kind == "embedding" and bits == 4)
        ):
            wanted, reason = "bf16", _PLAIN_ELSEWHERE
        for part in spec.parts:
            if part.disk not in steps:  # both correction biases share one
                steps[part.disk] = _step(checkpoint, part.disk, spec, wanted, reason, group_size)
    if portable:
        _check_widths(list(steps.values()), group_size)
    is_embedding_packed = any(step.kind == "embedding" and step.bits for step in steps.values())
    quantization = _quantization(bits, group_size, embedding=is_embedding_packed, head=not is_tied)
    return Plan(_shards(list(steps.values()), max_shard_bytes), quantization, is_tied)


def _check_widths(steps: list[Step], group_size: int) -> None:
    ragged = [step.name for step in steps if step.is_ragged]
    if ragged:
        raise ConfigError(
            f"the width of {len(ragged)} matrices is no multiple of the group size {group_size}, {ragged[0]} for one; "
            "a portable checkpoint has whole groups only. Take a smaller group size, or do without --portable: Tusi "
            "reads a short last group."
        )


def _step(
    checkpoint: Checkpoint, disk: str, spec: TensorSpec, wanted: WeightFormat, reason: str, group_size: int
) -> Step:
    stored = checkpoint.stored_info(disk)
    name = checkpoint.stored_name(disk)
    nbytes = stored.end - stored.begin
    bits: Bits | None = 4 if wanted == "int4" else 8 if wanted == "int8" else None
    if bits is None:
        dtype = "BF16" if wanted == "bf16" else stored.dtype
        tensors: tuple[TensorToWrite, ...] = (TensorToWrite(name, dtype, stored.shape),)
    else:
        rows, width = stored.shape
        shapes = ((rows, packed_width(width, bits)), (rows, -(-width // group_size)), (2,))
        tensors = tuple(
            TensorToWrite(n, d, s) for n, d, s in zip(packed_names(name), ("I32", "BF16", "I64"), shapes, strict=True)
        )
    ragged = bits is not None and stored.shape[1] % group_size != 0
    dtype_name = _DTYPE_NAMES[stored.dtype]
    return Step(name, disk, spec.kind, spec.component, bits, ragged, dtype_name, nbytes, tensors, reason)


def _quantization(bits: Bits, group_size: int, *, embedding: bool, head: bool) -> Quantization:
    """Targets that say the same as the steps; a test holds them together.

    Patterns, and loose at their beginning, because other programs put prefixes of their own before a module's name.
    vLLM calls the routers `text_experts_gate` and `vision_experts_gate`, and stacks experts only where the class
    `Linear` is a target.
    """
    ignore: tuple[str, ...] = (
        r"re:.*mlp\.gate$",
        r"re:.*experts_gate$",
        r"re:.*patch_embed\..*",
        r"re:.*resampler_model\..*",
    )
    names = {r"re:.*embed_tokens$": embedding, r"re:.*lm_head$": head and bits == 4}
    ignore += tuple(name for name, is_packed in names.items() if not is_packed)
    if bits == 8:
        return Quantization((QuantizationGroup(8, group_size, ("Linear",)),), ignore)
    finer = (*(name for name, is_packed in names.items() if is_packed), r"re:.*vision_model\..*")
    groups = (QuantizationGroup(4, group_size, ("Linear",)), QuantizationGroup(8, group_size, finer))
    return Quantization(groups, ignore)


def _shards(steps: list[Step], max_bytes: int) -> tuple[Shard, ...]:
    groups: list[list[Step]] = [[]]
    size = 0
    for step in steps:
        if groups[-1] and size + step.nbytes > max_bytes:
            groups.append([])
            size = 0
        groups[-1].append(step)
        size += step.nbytes
    if len(groups) == 1:
        return (Shard(SINGLE_FILE, tuple(groups[0])),)
    return tuple(
        Shard(f"model-{number:05d}-of-{len(groups):05d}.safetensors", tuple(group))
        for number, group in enumerate(groups, start=1)
    )
