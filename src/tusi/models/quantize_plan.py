"""What quantising will do to each tensor, decided before the first one is read: formats, shards, bytes, reasons.

In: an opened plain checkpoint and the asked format. Out: a `Plan`, the same for the same input, so that a stopped run
can go on. Reads no tensor.

The formats are `parameters.format_of`'s, with one exception: the resampler stays as it is, because vLLM builds it
without quantisation and would pass over packed weights without a word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tusi.core.errors import ConfigError
from tusi.core.types import WeightFormat
from tusi.models.checkpoint import SINGLE_FILE, Checkpoint
from tusi.models.key_table import Kind, Part, TensorSpec
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
_LAYER = re.compile(r"model\.language_model\.layers\.(\d+)\.")
_PLAIN_ELSEWHERE = "plain for vLLM"


@dataclass(frozen=True, slots=True)
class Step:
    """One published tensor and what it becomes. bits None: stored plain.

    memory, expert: the tensor in memory that it is (a part of), and the place in a stack of experts.
    """

    name: str
    disk: str
    memory: str
    expert: int | None
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

    @property
    def layer(self) -> int | None:
        """The number of the decoder layer that it belongs to."""
        found = _LAYER.match(self.memory)
        return int(found[1]) if found else None


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
    """All of it. quantization: what config.json will say. is_head_tied: the embedding is the head as well.

    uncalibrated: matrices that too few calibration tokens reached, known at the end alone.
    """

    shards: tuple[Shard, ...]
    quantization: Quantization
    is_head_tied: bool
    uncalibrated: tuple[str, ...] = ()

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
    checkpoint: Checkpoint,
    bits: Bits,
    group_size: int,
    max_shard_bytes: int,
    *,
    portable: bool = False,
    by_layer: bool = False,
) -> Plan:
    """Decide everything. The order is that of the published files.

    portable: only what vLLM reads as well: a tied embedding stays plain, and a matrix whose width `group_size` does not
    divide is a ConfigError. by_layer: the decoder's layers one after the other instead, each in one shard and its
    experts one by one, which is how calibration walks through them.
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
                steps[part.disk] = _step(checkpoint, part, spec, wanted, reason, group_size)
    if portable:
        _check_widths(list(steps.values()), group_size)
    is_embedding_packed = any(step.kind == "embedding" and step.bits for step in steps.values())
    quantization = _quantization(bits, group_size, embedding=is_embedding_packed, head=not is_tied)
    pieces = _layers(list(steps.values())) if by_layer else [[step] for step in steps.values()]
    return Plan(_shards(pieces, max_shard_bytes), quantization, is_tied)


def _check_widths(steps: list[Step], group_size: int) -> None:
    ragged = [step.name for step in steps if step.is_ragged]
    if ragged:
        raise ConfigError(
            f"the width of {len(ragged)} matrices is no multiple of the group size {group_size}, {ragged[0]} for one; "
            "a portable checkpoint has whole groups only. Take a smaller group size, or do without --portable: Tusi "
            "reads a short last group."
        )


def _step(
    checkpoint: Checkpoint, part: Part, spec: TensorSpec, wanted: WeightFormat, reason: str, group_size: int
) -> Step:
    disk = part.disk
    expert = part.memory_index[0] if part.memory_index and isinstance(part.memory_index[0], int) else None
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
    return Step(
        name, disk, spec.name, expert, spec.kind, spec.component, bits, ragged, dtype_name, nbytes, tensors, reason
    )


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


def _layers(steps: list[Step]) -> list[list[Step]]:
    """The layers, and then what belongs to none, one by one. Parts that have the same inputs are neighbours."""
    layers: dict[int, list[Step]] = {}
    others = []
    for step in steps:
        if step.layer is None:
            others.append([step])
        else:
            layers.setdefault(step.layer, []).append(step)
    for layer in layers.values():
        first_seen = {name: place for place, name in reversed([*enumerate(step.memory for step in layer)])}
        layer.sort(key=lambda step: (first_seen[step.memory], -1 if step.expert is None else step.expert))
    return [*(layers[number] for number in sorted(layers)), *others]


def _shards(pieces: list[list[Step]], max_bytes: int) -> tuple[Shard, ...]:
    """Files of at most max_bytes, but for pieces that are larger by themselves; a piece is never cut."""
    groups: list[list[Step]] = [[]]
    size = 0
    for piece in pieces:
        nbytes = sum(step.nbytes for step in piece)
        if groups[-1] and size + nbytes > max_bytes:
            groups.append([])
            size = 0
        groups[-1] += piece
        size += nbytes
    if len(groups) == 1:
        return (Shard(SINGLE_FILE, tuple(groups[0])),)
    return tuple(
        Shard(f"model-{number:05d}-of-{len(groups):05d}.safetensors", tuple(group))
        for number, group in enumerate(groups, start=1)
    )
