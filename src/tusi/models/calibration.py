"""The decoder run over samples one layer at a time, to learn what its matrices are multiplied with.

In: a plain checkpoint and processed prompts. Out: for a matrix, the `Factor` with which rounding it errs least on these
samples, or None. Held are one layer's weights, the second moments of their inputs, and the hidden states of all tokens
before the next layer; `memory_needed` counts them, and what does not fit is refused. What goes from layer to layer is
the plain model's, so that a layer does not depend on how others were rounded.

Layers are asked for in order. `save` keeps the hidden states, from which a stopped run goes on.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tusi.core import machine
from tusi.core.errors import CheckpointError, ConfigError
from tusi.core.types import WeightFormat
from tusi.models.checkpoint import Checkpoint
from tusi.models.decoder import DecoderLayer, TextModel
from tusi.models.full_sequence import Prompt, media_embeds, new_kv_caches, one_request_metadata
from tusi.models.key_table import TensorSpec
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration
from tusi.models.moe import MLP
from tusi.models.parameters import Parameters
from tusi.models.recording import Key, RecordingParameters, Records
from tusi.models.resampler import VariableResolutionResamplerModel
from tusi.models.rope import text_rope
from tusi.models.safetensors_io import atomic_write
from tusi.models.vision_tower import VisionTransformer
from tusi.quant.compensated import WIDEST, Factor, Moments, make_factor
from tusi.quant.weights import F32

LEAST_TOKENS = 32
"""A matrix that fewer tokens reached is rounded as without samples: their moments would say little about others."""
_INVERTING = 5
"""Float64 squares that are alive while one is inverted."""
STATE_FILE = ".tusi-calibration.npz"

Tell = Callable[[str], None]
"""Called with what is being done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSamples:
    """What to calibrate on. prompts: makes them, in the same order each time. digest: of their file and number."""

    prompts: Callable[[], Iterable[Prompt]]
    digest: str


@dataclass(slots=True)
class Calibration:
    """The tokens of all samples, one after the other, before layer `next_layer`.

    starts: where each sample's tokens begin, and the end. records: of the layer before that.
    """

    checkpoint: Checkpoint
    hidden_TD: F32
    position_ids_3T: NDArray[np.int32]
    vision_T: NDArray[np.bool_]
    starts: NDArray[np.int64]
    next_layer: int = 0
    tell: Tell = lambda _: None
    _records: Records = field(default_factory=Records)
    _last: tuple[Moments, Factor] | None = None

    @classmethod
    def begin(cls, checkpoint: Checkpoint, samples: CalibrationSamples, tell: Tell = lambda _: None) -> Calibration:
        """Before the first layer. Raises ConfigError for no sample at all, or more than memory holds."""
        model = _without_decoder(checkpoint)
        parts: list[tuple[F32, NDArray[np.int32], NDArray[np.bool_]]] = []
        tokens = 0
        for number, prompt in enumerate(samples.prompts(), start=1):
            tell(f"reading sample {number}")
            vision_T = np.asarray(prompt.moe_mm_token_type_ids) != 0
            parts.append((media_embeds(model, prompt), np.asarray(prompt.position_ids, np.int32), vision_T))
            tokens += len(vision_T)
            _require_memory(checkpoint, tokens)
        if not parts:
            raise ConfigError("there is no sample to calibrate on. Give a file with one conversation a line.")
        hidden, positions, vision = zip(*parts, strict=True)
        starts = np.cumsum([0, *map(len, vision)])
        joined = np.concatenate(hidden), np.concatenate(positions, axis=1), np.concatenate(vision)
        return cls(checkpoint, *joined, starts, tell=tell)

    @classmethod
    def resume(
        cls, checkpoint: Checkpoint, folder: Path, before: int, tell: Tell = lambda _: None
    ) -> Calibration | None:
        """What `save` kept in a folder, if it is whole and not beyond the layer that is needed."""
        try:
            with (folder / STATE_FILE).open("rb") as file, np.load(file) as state:
                next_layer = int(state["next_layer"])
                arrays = state["hidden_TD"], state["position_ids_3T"], state["vision_T"], state["starts"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None
        return cls(checkpoint, *arrays, next_layer=next_layer, tell=tell) if next_layer <= before else None

    def save(self, folder: Path) -> None:
        """Keep the hidden states, so that a stopped run need not begin with the first layer."""
        with atomic_write(folder / STATE_FILE) as file:
            np.savez(
                file,
                next_layer=self.next_layer,
                hidden_TD=self.hidden_TD,
                position_ids_3T=self.position_ids_3T,
                vision_T=self.vision_T,
                starts=self.starts,
            )

    @property
    def num_samples(self) -> int:
        return len(self.starts) - 1

    @property
    def num_tokens(self) -> int:
        return len(self.hidden_TD)

    def factor(self, layer: int, key: Key) -> Factor | None:
        """How to round a matrix of a layer; None if fewer than LEAST_TOKENS reached it.

        Raises CheckpointError where the model makes values that are not finite.
        """
        while self.next_layer <= layer:
            self._run_layer(is_recorded=self.next_layer == layer)
        moments = self._records.by_key[key]
        if moments.tokens < LEAST_TOKENS:
            return None
        if self._last is None or self._last[0] is not moments:
            self._last = moments, make_factor(moments)
        return self._last[1]

    def _run_layer(self, *, is_recorded: bool) -> None:
        """Take all samples through the next layer."""
        number, config = self.next_layer, self.checkpoint.config.text_config
        self._records, self._last = Records(), None
        weight_format = _plain_format(self.checkpoint)
        params = (
            RecordingParameters(self.checkpoint, weight_format, self._records)
            if is_recorded
            else Parameters(self.checkpoint, weight_format)
        )
        self.tell(f"layer {number}: reading weights")
        layer = _step_by_step(DecoderLayer.load(params.under(f"model.language_model.layers.{number}."), config, number))
        for sample, (begin, end) in enumerate(zip(self.starts[:-1], self.starts[1:], strict=True), start=1):
            self.tell(f"layer {number}: sample {sample} of {self.num_samples}")
            tokens = slice(int(begin), int(end))
            cos_TP, sin_TP = text_rope(self.position_ids_3T[:, tokens], config)
            count = int(end - begin)
            cache = new_kv_caches(replace(config, num_hidden_layers=1), count)[0]
            hidden_TD = self.hidden_TD[tokens].copy()
            self.hidden_TD[tokens] = layer(
                hidden_TD, cos_TP, sin_TP, self.vision_T[tokens], one_request_metadata(count), cache, None
            )
        if not np.isfinite(self.hidden_TD).all():
            raise CheckpointError(
                f"the calibration samples make values that are not finite in layer {number}. The checkpoint is damaged "
                "or the training run that wrote it diverged; quantise without samples to see which tensor."
            )
        self.next_layer = number + 1


def _step_by_step(layer: DecoderLayer) -> DecoderLayer:
    """The same layer without its native calls, which would pass by the matrices that note their inputs."""
    mlp = layer.mlp
    if isinstance(mlp, MLP):
        return replace(layer, mlp=replace(mlp, experts=None))
    shared = None if mlp.shared_experts is None else replace(mlp.shared_experts, experts=None)
    return replace(layer, mlp=replace(mlp, is_native=False, shared_experts=shared))


def memory_needed(checkpoint: Checkpoint, tokens: int) -> int:
    """Bytes at most: hidden states twice, one layer as it is stored, what is noted for each of its matrices (a float32
    square of its width), and what one of these squares takes while it is inverted."""
    config = checkpoint.config.text_config
    weights: dict[str, int] = {}
    moments: dict[str, int] = {}
    for spec in checkpoint.specs.values():
        if spec.kind == "matrix":
            layer = ".".join(spec.name.split(".")[:4])
            weights[layer] = weights.get(layer, 0) + checkpoint.stored_bytes(spec.name)
            moments[layer] = moments.get(layer, 0) + _square_bytes(spec)
    largest = max(weights[layer] + moments[layer] for layer in weights)
    widest = max(min(spec.shape[-1], WIDEST) for spec in checkpoint.specs.values() if spec.kind == "matrix")
    return largest + 2 * tokens * config.hidden_size * 4 + _INVERTING * widest**2 * 8


def _square_bytes(spec: TensorSpec) -> int:
    experts = spec.shape[0] if len(spec.shape) == 3 else 1
    return experts * spec.shape[-1] * min(spec.shape[-1], WIDEST) * 4


def _require_memory(checkpoint: Checkpoint, tokens: int) -> None:
    needed, available = memory_needed(checkpoint, tokens), machine.memory().available
    if available is not None and needed > available:
        raise ConfigError(
            f"calibrating on {tokens} tokens or more takes {needed / 2**30:.1f} GiB of memory, and "
            f"{available / 2**30:.1f} GiB are free here. Take fewer (--calibration-samples) or shorter samples, or "
            "close other programs."
        )


def _plain_format(checkpoint: Checkpoint) -> WeightFormat:
    return "bf16" if checkpoint.config.dtype == "bfloat16" else "fp32"


def _without_decoder(checkpoint: Checkpoint) -> Ernie4_5_VLMoeForConditionalGeneration:
    """Embedding, vision tower and resampler: all that makes the first layer's input."""
    config = checkpoint.config
    weight_format = _plain_format(checkpoint)
    params = Parameters(checkpoint, weight_format).under("model.")
    embed_tokens = params.weight("language_model.embed_tokens.weight")
    text = replace(config.text_config, num_hidden_layers=0, mlp_layer_types=())
    return Ernie4_5_VLMoeForConditionalGeneration(
        config=config,
        dtype=weight_format,
        embed_tokens=embed_tokens,
        language_model=TextModel.load(params.under("language_model."), text),
        vision_tower=VisionTransformer.load(params.under("vision_tower."), config.vision_config),
        resampler_model=VariableResolutionResamplerModel.load(params.under("resampler_model."), config),
        lm_head=embed_tokens,
    )
