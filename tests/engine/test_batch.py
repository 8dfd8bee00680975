from __future__ import annotations

import random

import numpy as np

from tests.fixtures.fake_model import make_request
from tusi.engine.admission import token_flags
from tusi.engine.batch import InputBatch, ModelInput, _BlockTable, _pack
from tusi.engine.scheduler import ScheduledRequest


def prepare(*items: ScheduledRequest) -> ModelInput:
    for item in items:
        item.request.token_flags = token_flags(item.request)
    return InputBatch(block_size=4).prepare(items)


def test_tokens_of_all_requests_are_packed_with_their_places_in_the_cache() -> None:
    first = make_request("first", [10, 11, 12, 13, 14, 15])
    second = make_request("second", [20, 21, 22])
    second.output_token_ids += [23, 24]
    batch = prepare(ScheduledRequest(first, 2, 3, (7, 3)), ScheduledRequest(second, 4, 1, (5, 9)))
    assert batch.input_ids_T.tolist() == [12, 13, 14, 24]
    assert batch.attn.query_start_loc_R1.tolist() == [0, 3, 4]
    assert batch.attn.seq_lens_R.tolist() == [5, 5]
    assert batch.attn.block_table_RB.tolist() == [[7, 3], [5, 9]]
    assert batch.attn.slot_mapping_T.tolist() == [7 * 4 + 2, 7 * 4 + 3, 3 * 4, 9 * 4]
    assert batch.logits_rows_R.tolist() == [3], "the first has a prompt token left"


def test_arrays_have_the_types_that_the_kernels_demand() -> None:
    batch = prepare(ScheduledRequest(make_request("r", [3, 4]), 0, 2, (0,)))
    assert batch.position_ids_3T.dtype == np.int32
    assert batch.vision_mask_T.dtype == np.bool_
    assert batch.attn.slot_mapping_T.dtype == np.int64
    for array in (batch.attn.query_start_loc_R1, batch.attn.seq_lens_R, batch.attn.block_table_RB):
        assert array.dtype == np.int32
    assert all(a.flags.c_contiguous for a in (batch.position_ids_3T, batch.attn.block_table_RB))


def test_positions_are_the_prompts_and_then_count_on_from_its_delta() -> None:
    request = make_request("r", [3, ("image", 1, 4), 5])
    assert request.mrope_position_delta == -2
    request.output_token_ids += [30, 31, 32]
    whole = prepare(ScheduledRequest(request, 0, 9, (0, 1, 2))).position_ids_3T
    np.testing.assert_array_equal(whole[:, :6], request.position_ids)
    assert whole[:, 6:].tolist() == [[4, 5, 6]] * 3
    for start, count in ((0, 3), (4, 4), (7, 2)):
        part = prepare(ScheduledRequest(request, start, count, (0, 1, 2))).position_ids_3T
        np.testing.assert_array_equal(part, whole[:, start : start + count])


def test_without_positions_tokens_are_counted() -> None:
    request = make_request("r", [3, 4, 5], position_ids=None, token_types=None)
    request.output_token_ids.append(6)
    assert prepare(ScheduledRequest(request, 1, 3, (0,))).position_ids_3T.tolist() == [[1, 2, 3]] * 3


def test_generated_tokens_are_text_whatever_their_id() -> None:
    request = make_request("r", [3, ("image", 1, 2)])
    request.output_token_ids += [request.prompt_token_ids[1]]
    assert prepare(ScheduledRequest(request, 0, 4, (0,))).vision_mask_T.tolist() == [False, True, True, False]
    assert prepare(ScheduledRequest(request, 2, 2, (0,))).vision_mask_T.tolist() == [True, False]


def assert_equal(batch: ModelInput, expected: ModelInput) -> None:
    for name in ("input_ids_T", "position_ids_3T", "vision_mask_T", "logits_rows_R"):
        found, wanted = getattr(batch, name), getattr(expected, name)
        np.testing.assert_array_equal(found, wanted, err_msg=name)
        assert (found.dtype, found.flags.c_contiguous) == (wanted.dtype, True), name
    for name in ("query_start_loc_R1", "seq_lens_R", "slot_mapping_T"):
        found, wanted = getattr(batch.attn, name), getattr(expected.attn, name)
        np.testing.assert_array_equal(found, wanted, err_msg=name)
        assert (found.dtype, found.flags.c_contiguous) == (wanted.dtype, True), name
    # The kept table may be wider than this step needs.
    width = expected.attn.block_table_RB.shape[1]
    np.testing.assert_array_equal(batch.attn.block_table_RB[:, :width], expected.attn.block_table_RB)
    assert batch.attn.block_table_RB.flags.c_contiguous


def test_what_is_kept_from_step_to_step_changes_nothing() -> None:
    """Requests come, grow, are put back, end, and others take their names: each step is as if packed for itself."""
    rng = random.Random(0)
    kept = InputBatch(block_size=4)
    requests = []
    for step in range(600):
        if len(requests) < 5 and rng.random() < 0.3:
            request = make_request(f"r{rng.randrange(6)}", [3, ("image", 1, 4), *range(5, 5 + rng.randrange(9))])
            request.token_flags = token_flags(request)
            request.sequence_number = step
            requests.insert(rng.randrange(len(requests) + 1), request)
        if requests and rng.random() < 0.05:
            requests.pop(rng.randrange(len(requests)))
        if requests and rng.random() < 0.05:
            victim = rng.choice(requests)
            victim.num_preemptions, victim.num_computed_tokens, victim.block_ids = victim.num_preemptions + 1, 0, []
        chosen = [r for r in requests if rng.random() < 0.97]
        items = []
        for request in chosen:
            count = request.num_tokens - request.num_computed_tokens
            count = rng.randint(1, count) if rng.random() < 0.3 else count
            end = request.num_computed_tokens + count
            while len(request.block_ids) * 4 < end:
                request.block_ids.append(rng.randrange(1000))
            items.append(ScheduledRequest(request, request.num_computed_tokens, count, tuple(request.block_ids)))
        if not items:
            continue
        assert_equal(kept.prepare(items), _pack(items, _BlockTable().of(items), 4))
        for item in items:
            item.request.num_computed_tokens = item.end
            if item.needs_logits:
                item.request.output_token_ids.append(rng.randrange(30))


def test_the_kept_table_holds_no_request() -> None:
    batch = InputBatch(block_size=4)
    request = make_request("r", [3, 4])
    request.token_flags = token_flags(request)
    batch.prepare([ScheduledRequest(request, 0, 2, (0,))])
    assert not any(isinstance(value, type(request)) for row in batch._table._rows for value in row)
