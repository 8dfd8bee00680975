"""The packed tokens of one step as arrays: ids, positions, vision mask, and where keys and values lie.

Most steps are like the one before, a token a request: for those the block table is kept and the rest is a handful of
operations over all requests at once. Owns nothing else of a request from step to step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tusi.engine.request import Request
from tusi.engine.scheduler import ScheduledRequest
from tusi.models.attention_metadata import AttentionMetadata


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInput:
    """The packed tokens of one step. Valid until the next one is prepared: the block table is written again."""

    input_ids_T: NDArray[np.int64]
    position_ids_3T: NDArray[np.int32]
    vision_mask_T: NDArray[np.bool_]
    attn: AttentionMetadata
    logits_rows_R: NDArray[np.int64]


class InputBatch:
    """Prepares one step after another."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._table = _BlockTable()

    def prepare(self, scheduled: Sequence[ScheduledRequest]) -> ModelInput:
        """Pack the scheduled tokens of all requests."""
        block_table_RB = self._table.of(scheduled)
        if all(s.num_scheduled_tokens == 1 and s.start >= len(s.request.prompt_token_ids) for s in scheduled):
            return _pack_generated(scheduled, block_table_RB, self._block_size)
        return _pack(scheduled, block_table_RB, self._block_size)


class _BlockTable:
    """[R, B] of the requests of a step, rows padded with 0; written anew only where it has changed.

    Blocks are only ever appended to a running request; one that was put back starts over, which its num_preemptions
    tells. Names stand for the requests here: these hold pixels, and must not live on in this table.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[str, int, int]] = []
        self._lengths: list[int] = []
        self._table_RB = np.zeros((0, 0), np.int32)

    def of(self, scheduled: Sequence[ScheduledRequest]) -> NDArray[np.int32]:
        rows = [(r.request_id, r.sequence_number, r.num_preemptions) for s in scheduled for r in (s.request,)]
        lengths = [len(s.block_ids) for s in scheduled]
        width = self._table_RB.shape[1]
        if rows != self._rows or max(lengths) > width:
            self._table_RB = np.zeros((len(rows), max(lengths)), np.int32)
            self._lengths = [0] * len(rows)
            self._rows = rows
        if lengths != self._lengths:
            for row, item, known, length in zip(self._table_RB, scheduled, self._lengths, lengths, strict=True):
                if length != known:
                    row[known:length] = item.block_ids[known:]
            self._lengths = lengths
        return self._table_RB


def _pack_generated(
    scheduled: Sequence[ScheduledRequest], block_table_RB: NDArray[np.int32], block_size: int
) -> ModelInput:
    """`_pack` where each request has one token, a generated one."""
    count = len(scheduled)
    facts_3R = np.array(
        [
            (s.start, r.output_token_ids[s.start - len(r.prompt_token_ids)], r.mrope_position_delta)
            for s in scheduled
            for r in (s.request,)
        ],
        np.int64,
    ).T
    starts_R, ids_R, deltas_R = facts_3R
    position_ids_3T = np.empty((3, count), np.int32)
    position_ids_3T[:] = starts_R + deltas_R
    block_ids_R = block_table_RB[np.arange(count), starts_R // block_size]
    return ModelInput(
        input_ids_T=ids_R.copy(),
        position_ids_3T=position_ids_3T,
        vision_mask_T=np.zeros(count, np.bool_),
        attn=AttentionMetadata(
            query_start_loc_R1=np.arange(count + 1, dtype=np.int32),
            seq_lens_R=(starts_R + 1).astype(np.int32),
            block_table_RB=block_table_RB,
            slot_mapping_T=block_ids_R * np.int64(block_size) + starts_R % block_size,
        ),
        logits_rows_R=np.array([row for row, s in enumerate(scheduled) if s.needs_logits], np.int64),
    )


def _pack(scheduled: Sequence[ScheduledRequest], block_table_RB: NDArray[np.int32], block_size: int) -> ModelInput:
    lengths_R = np.array([s.num_scheduled_tokens for s in scheduled], np.int64)
    query_start_loc_R1 = np.concatenate([[0], np.cumsum(lengths_R)]).astype(np.int32)
    slots = []
    for row, item in zip(block_table_RB, scheduled, strict=True):
        index_T = np.arange(item.start, item.end)
        slots.append(row[index_T // block_size].astype(np.int64) * block_size + index_T % block_size)
    return ModelInput(
        input_ids_T=np.concatenate([np.array(s.request.token_ids(s.start, s.end), np.int64) for s in scheduled]),
        position_ids_3T=np.concatenate([_positions(s.request, s.start, s.end) for s in scheduled], axis=1),
        vision_mask_T=np.concatenate([_vision_mask(s.request, s.start, s.end) for s in scheduled]),
        attn=AttentionMetadata(
            query_start_loc_R1=query_start_loc_R1,
            seq_lens_R=np.array([s.end for s in scheduled], np.int32),
            block_table_RB=block_table_RB,
            slot_mapping_T=np.concatenate(slots),
        ),
        logits_rows_R=np.array(
            [end - 1 for s, end in zip(scheduled, query_start_loc_R1[1:], strict=True) if s.needs_logits], np.int64
        ),
    )


def _positions(request: Request, start: int, end: int) -> NDArray[np.int32]:
    """[3, end - start]: the processor's for the prompt, index + mrope_position_delta on all axes after it."""
    num_prompt = request.num_prompt_tokens
    generated = np.arange(max(start, num_prompt), max(end, num_prompt), dtype=np.int32)
    generated_3T = np.tile(generated + np.int32(request.mrope_position_delta), (3, 1))
    if request.position_ids is None:
        prompt_3T = np.tile(np.arange(min(start, num_prompt), min(end, num_prompt), dtype=np.int32), (3, 1))
    else:
        prompt_3T = np.asarray(request.position_ids, np.int32)[:, start:end]
    return np.concatenate([prompt_3T, generated_3T], axis=1)


def _vision_mask(request: Request, start: int, end: int) -> NDArray[np.bool_]:
    """True where a prompt token goes to the vision experts; generated tokens are always text."""
    mask_T = np.zeros(end - start, np.bool_)
    prompt_part = np.frombuffer(request.token_flags[start:end], np.uint8)
    mask_T[: len(prompt_part)] = prompt_part != 0
    return mask_T
