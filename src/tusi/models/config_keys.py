"""The keys of config.json that do not shape the model: refused ones with the reason, harmless ones by name.

A key in none of these lists and not read by `config_io` is reported in one warning. Knows nothing of tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

MODEL_TYPES = ("ernie4_5_moe_vl", "ernie4_5_vl_moe")

OTHER_TOOLS = {
    "ernie4_5": "a text-only ERNIE-4.5; use transformers, vLLM or llama.cpp for it",
    "ernie4_5_moe": "a text-only ERNIE-4.5 mixture of experts; use transformers or vLLM for it",
    "paddleocr_vl": "PaddleOCR-VL; use PaddleOCR or transformers for it",
    "qwen2_vl": "Qwen2-VL; use transformers, vLLM or llama.cpp for it",
    "qwen2_5_vl": "Qwen2.5-VL; use transformers, vLLM or llama.cpp for it",
    "qwen3_vl": "Qwen3-VL; use transformers, vLLM or llama.cpp for it",
    "qwen3_vl_moe": "Qwen3-VL; use transformers or vLLM for it",
    "llava": "LLaVA; use transformers, vLLM or llama.cpp for it",
    "llama": "a Llama; use transformers, vLLM or llama.cpp for it",
}


class Refusal(NamedTuple):
    """A feature that would change the answers and that is not implemented. `neutral`: values that leave it off."""

    neutral: Callable[[object], bool]
    reason: str


def _off(value: object) -> bool:
    return value in (None, False, 0, 0.0, "", [], {})


def _one_of(*values: object) -> Callable[[object], bool]:
    return lambda value: value is None or value in values


_QUANTIZED = "this checkpoint is already quantised in a way that is not read here; download the bf16 one"

REFUSED: dict[str, Refusal] = {
    "use_bias": Refusal(_off, "biases in attention and MLP projections are not implemented"),
    "attention_bias": Refusal(_off, "biases in attention projections are not implemented"),
    "mlp_bias": Refusal(_off, "biases in MLP projections are not implemented"),
    "rope_scaling": Refusal(_off, "scaled rotary positions are not implemented"),
    "compression_ratio": Refusal(_one_of(1, 1.0), "compressed rotary positions are not implemented"),
    "mm_vocab_size": Refusal(_off, "a separate multimodal head is not implemented"),
    "num_nextn_predict_layers": Refusal(_off, "multi-token prediction layers are not implemented"),
    "sliding_window": Refusal(_off, "sliding-window attention is not implemented"),
    "use_qk_norm": Refusal(_off, "normalised queries and keys are not implemented"),
    "moe_group_experts": Refusal(_off, "group-limited routing is not implemented"),
    "moe_use_token_type_bias": Refusal(_off, "a routing bias by token type is not implemented"),
    "hidden_act": Refusal(_one_of("silu"), "the decoder's activation is silu and no other is implemented"),
    "moe_gate_act": Refusal(_one_of("softmax"), "routers use softmax and no other is implemented"),
    "moe_norm_gate_logits": Refusal(_one_of(True), "routers renormalise their weights; others are not implemented"),
    "moe_use_aux_free": Refusal(_one_of(True), "routers without a correction bias are not implemented"),
    # ERNIE names its top-k gate in three ways; moe_k says how many experts.
    "moe_gate": Refusal(_one_of("topk", "top2", "top2_fused"), "only the top-k gate is implemented"),
    "moe_use_hard_gate": Refusal(_one_of(True), "experts shared between modalities are not implemented"),
    "rope_3d": Refusal(_one_of(True), "one-dimensional positions are not implemented"),
    "use_temporal_conv": Refusal(_one_of(True), "a resampler without frame pairing is not implemented"),
    "use_rmsnorm": Refusal(_one_of(True), "LayerNorm in the decoder is not implemented"),
    "cachekv_quant": Refusal(_off, "a checkpoint with calibrated KV-cache quantisation is not implemented"),
    "weight_quantize_algo": Refusal(_off, _QUANTIZED),
    "quantization_config": Refusal(_off, _QUANTIZED),  # the one at the top level is read by `quantization`
}

REFUSED_VISION: dict[str, Refusal] = {
    "hidden_act": Refusal(
        _one_of("quick_gelu"), "the vision tower's activation is quick_gelu and no other is implemented"
    ),
    "quantization_config": REFUSED["quantization_config"],
}

HARMLESS = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash _name_or_path add_cross_attention add_tail_layers
    architectures attention_dropout attention_probs_dropout_prob attn_implementation auto_map bad_words_ids
    base_config_key chunk_size_feed_forward cls_token_id cross_attention_hidden_size decoder_start_token_id
    disable_ffn_model_parallel dpo_config enable_delay_scale_loss enable_mtp_magic_send finetuning_task
    fuse_attention_ffn fuse_attention_qkv fuse_gate_detach_matmul fuse_linear fuse_ln fuse_rms_norm fuse_rope
    fuse_softmax_mask fuse_swiglu global_aux_loss hidden_dropout_prob id2label ignored_index initializer_range
    is_decoder is_encoder_decoder keep_in_fp32 label2id max_sequence_length max_text_id micro_batch_size
    modality_detach moe_all_to_all_dropout moe_aux_loss_lambda moe_capacity moe_dense_experts_token_type_id
    moe_dropout_prob moe_fuse_experts moe_group moe_group_orthogonal_loss moe_layer_feed_fake_token
    moe_multimodal_dispatch_use_allgather moe_orthogonal_loss_lambda moe_reverse_token_drop moe_use_size_all2all
    moe_z_loss_lambda mtp_loss_scaling_factor multi_token_pred_lambda num_acc_steps output_attentions
    output_hidden_states output_router_logits paddleformers_version paddlenlp_version partial_rotary_factor
    pipeline_parallel_degree pp_seg_method problem_type pruned_heads quantization recompute recompute_granularity
    recompute_use_reentrant refined_recompute resampler_fuse_rms_norm return_dict return_dict_in_generate
    router_aux_loss_coef scale_qk_coeff sep_parallel_degree sep_token_id sequence_parallel sinkhorn_2gate sinkhorn_temp
    skip_recompute_ops task_specific_params tensor_parallel_degree tensor_parallel_output tf_legacy_loss
    tie_encoder_decoder token_balance_loss token_balance_seqlen tokenizer_class torchscript transformers_version
    use_bfloat16 use_cache use_filtered_label_loss use_flash_attention use_flash_attn use_flash_attn_with_mask
    use_fused_head_and_loss_fn use_recompute use_recompute_lm_head use_recompute_loss_fn use_recompute_moe
    use_recompute_mtp use_recompute_resampler use_sparse_flash_attn use_sparse_head_and_loss_fn use_var_len_flash_attn
    virtual_pp_degree vision_model_name_or_path weight_share_add_bias
    """.split()  # noqa: SIM905 - a list of 120 quoted words reads worse
)

HARMLESS_VISION = frozenset(
    """
    attn_implementation attn_sep in_chans initializer_range model_type pp_data_balance recompute spatial_patch_size
    tensor_parallel_degree use_recompute vit_first_fwd_bsz vit_num_recompute_layers
    """.split()  # noqa: SIM905 - a list of 120 quoted words reads worse
)
