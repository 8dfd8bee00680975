"""The whole model: embeddings and media features in, hidden states and logits out.

Owns the weights and nothing that changes: caches and positions come in as arguments. Knows nothing of requests, text or
image files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tusi.core.errors import RequestError
from tusi.core.types import WeightFormat, WeightFormatChoice
from tusi.models.attention_metadata import AttentionMetadata, LayerKVCache
from tusi.models.checkpoint import Checkpoint
from tusi.models.config import Ernie4_5_VLMoeConfig
from tusi.models.decoder import TextModel
from tusi.models.moe import Bool, RoutingRecorder
from tusi.models.parameters import Parameters, Progress, TensorSource, choose_format
from tusi.models.resampler import VariableResolutionResamplerModel
from tusi.models.rope import Positions
from tusi.models.vision_tower import VisionTransformer
from tusi.quant.weights import DEFAULT_GROUP_SIZE, F32, Activations, Weight


@dataclass(frozen=True, slots=True)
class Ernie4_5_VLMoeForConditionalGeneration:
    """ERNIE-4.5-VL. What goes from layer to layer is float32 whatever the weights' format."""

    config: Ernie4_5_VLMoeConfig
    dtype: WeightFormat
    embed_tokens: Weight
    language_model: TextModel
    vision_tower: VisionTransformer
    resampler_model: VariableResolutionResamplerModel
    lm_head: Weight

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        dtype: WeightFormatChoice = "auto",
        *,
        group_size: int = DEFAULT_GROUP_SIZE,
        activations: Activations = "int8",
        progress: Progress | None = None,
    ) -> Ernie4_5_VLMoeForConditionalGeneration:
        """Load a checkpoint folder, its matrices rounded to `dtype` (see `parameters` for which).

        A quantised checkpoint is loaded as it is stored. activations: products over integer weights round their input
        to eight bits (int8, several times as fast), or take it as it is (float32).

        Raises CheckpointError for a folder that is not a sound checkpoint, ConfigError for an unknown dtype, or one
        that a quantised checkpoint is not stored in.
        """
        checkpoint = Checkpoint(path)
        return cls.from_tensors(
            checkpoint.config, checkpoint, dtype, group_size=group_size, activations=activations, progress=progress
        )

    @classmethod
    def from_tensors(
        cls,
        config: Ernie4_5_VLMoeConfig,
        tensors: TensorSource,
        dtype: WeightFormatChoice = "auto",
        *,
        group_size: int = DEFAULT_GROUP_SIZE,
        activations: Activations = "int8",
        progress: Progress | None = None,
    ) -> Ernie4_5_VLMoeForConditionalGeneration:
        """As `from_pretrained`, from an opened checkpoint or anything that gives tensors by name."""
        weight_format = choose_format(config, dtype)
        params = Parameters(tensors, weight_format, group_size=group_size, activations=activations, progress=progress)
        return cls.from_parameters(config, weight_format, params)

    @classmethod
    def from_parameters(
        cls, config: Ernie4_5_VLMoeConfig, weight_format: WeightFormat, params: Parameters
    ) -> Ernie4_5_VLMoeForConditionalGeneration:
        """The model over weights that `params` hands out, whatever it makes them from."""
        model = params.under("model.")
        embed_tokens = model.weight("language_model.embed_tokens.weight")
        return cls(
            config=config,
            dtype=weight_format,
            embed_tokens=embed_tokens,
            language_model=TextModel.load(model.under("language_model."), config.text_config),
            vision_tower=VisionTransformer.load(model.under("vision_tower."), config.vision_config),
            resampler_model=VariableResolutionResamplerModel.load(model.under("resampler_model."), config),
            lm_head=embed_tokens if config.tie_word_embeddings else params.weight("lm_head.weight"),
        )

    def embed(self, input_ids_T: NDArray[np.integer] | Sequence[int]) -> F32:
        """Token embeddings [T, D]; a fresh array, so that media features may be written over placeholders.

        Raises RequestError for an id outside the vocabulary (NumPy would take -1 for the last row).
        """
        ids_T = np.asarray(input_ids_T, np.int64)
        vocab_size = self.config.text_config.vocab_size
        if ids_T.size and ids_T.view(np.uint64).max() >= vocab_size:  # seen so, a negative one is very large
            raise RequestError(
                f"token ids run from {ids_T.min()} to {ids_T.max()}; this model has 0..{vocab_size - 1}. "
                "Tokenize with the tokenizer of this checkpoint.",
                param="input_ids",
            )
        return self.embed_tokens.rows(ids_T)

    def get_media_features(self, pixel_values_PC: F32, grid_thw: tuple[int, int, int]) -> F32:
        """Features [T, D] that stand in for the placeholder tokens of one picture (t = 1) or video (t even).

        Raises RequestError where pixels and grid do not belong together.
        """
        self._check_media(pixel_values_PC, grid_thw)
        return self.resampler_model(self.vision_tower(pixel_values_PC, grid_thw), grid_thw)

    def _check_media(self, pixel_values_PC: F32, grid_thw: tuple[int, int, int]) -> None:
        t, h, w = grid_thw
        vision = self.config.vision_config
        merge = vision.spatial_merge_size
        expected = (t * h * w, vision.patch_dim)
        sound_grid = min(grid_thw) > 0 and h % merge == 0 and w % merge == 0 and (t == 1 or t % 2 == 0)
        if not sound_grid or pixel_values_PC.shape != expected or pixel_values_PC.dtype != np.float32:
            raise RequestError(
                f"pixel_values are {pixel_values_PC.dtype} {list(pixel_values_PC.shape)} for the patch grid "
                f"{[t, h, w]}; expected float32 [t * h * w, {vision.patch_dim}], h and w multiples of {merge}, and t "
                "1 (a picture) or even (a video). Make them with the processor.",
                param="pixel_values",
            )

    def forward(
        self,
        inputs_embeds_TD: F32,
        position_ids_3T: Positions,
        vision_mask_T: Bool,
        attn: AttentionMetadata,
        kv_caches: Sequence[LayerKVCache],
        *,
        routing: RoutingRecorder | None = None,
    ) -> F32:
        """Run T packed tokens of R requests; store their keys and values; return hidden states [T, D] after the norm.

        position_ids_3T: rows t, h, w. vision_mask_T: moe_mm_token_type_ids != 0 (False for generated tokens).
        kv_caches: one a layer. routing: collects the experts chosen, if given.
        """
        return self.language_model(inputs_embeds_TD, position_ids_3T, vision_mask_T, attn, kv_caches, routing)

    def compute_logits(self, hidden_TD: F32) -> F32:
        """Logits [T, V] of hidden states after the final norm."""
        return self.lm_head.linear(hidden_TD)
