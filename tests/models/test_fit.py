from __future__ import annotations

from tusi.models.fit import MIN_USEFUL_CONTEXT, find_change, fit, least_bytes
from tusi.models.known import KNOWN_MODELS
from tusi.models.memory_estimate import estimate_memory

MODEL = KNOWN_MODELS["baidu/ERNIE-4.5-VL-28B-A3B-Thinking"]
GB = 10**9


def verdicts(budget: int, context: int = 32768, num_patches: int = 10764) -> list[str]:
    return [row.verdict for row in fit(MODEL, budget=budget, context=context, num_patches=num_patches).rows]


def test_verdicts_by_memory() -> None:
    assert verdicts(80 * GB) == ["fits", "fits", "fits"]
    assert verdicts(64 * GB) == ["tight", "fits", "fits"]
    assert verdicts(48 * GB) == ["no", "fits", "fits"]
    assert verdicts(24 * GB) == ["no", "no", "fits"]
    assert verdicts(16 * GB) == ["no", "no", "no"]


def test_best_is_the_highest_precision_that_fits() -> None:
    report = fit(MODEL, budget=48 * GB, context=32768, num_patches=0)
    assert report.best is not None
    assert report.best.weight_format == "int8"
    assert fit(MODEL, budget=8 * GB, context=32768, num_patches=0).best is None


def test_the_longest_context_really_is_one_that_fits_and_the_next_step_does_not() -> None:
    report = fit(MODEL, budget=23 * GB, context=4096, num_patches=10764)
    row = report.rows[2]
    comfortable = 0.95 * report.budget
    assert 4096 < row.max_context < 131072
    assert estimate_memory(MODEL, "int4", context=row.max_context, num_patches=10764).total <= comfortable
    assert estimate_memory(MODEL, "int4", context=row.max_context + 2048, num_patches=10764).total > comfortable


def test_an_int8_cache_leaves_room_for_a_longer_context() -> None:
    usual = fit(MODEL, budget=23 * GB, context=4096, num_patches=10764)
    report = fit(MODEL, budget=23 * GB, context=4096, num_patches=10764, kv_cache_dtype="int8")
    assert report.rows[2].max_context > 1.8 * usual.rows[2].max_context
    change = find_change(MODEL, fit(MODEL, budget=22 * GB, context=131072, num_patches=10764, kv_cache_dtype="int8"))
    plain = find_change(MODEL, fit(MODEL, budget=22 * GB, context=131072, num_patches=10764))
    assert change is not None
    assert plain is not None
    assert change.context > plain.context


def test_a_huge_machine_is_bounded_by_the_model() -> None:
    assert fit(MODEL, budget=1000 * GB, context=4096, num_patches=0).rows[0].max_context == 131072


def test_a_shorter_context_is_proposed_before_a_smaller_picture() -> None:
    report = fit(MODEL, budget=int(20.5 * GB), context=65536, num_patches=10764)
    assert report.best is None
    change = find_change(MODEL, report)
    assert change is not None
    assert change.pixels is None
    assert MIN_USEFUL_CONTEXT <= change.context < 65536
    again = fit(
        MODEL, budget=int(20.5 * GB), context=change.context, num_patches=10764, formats=(change.weight_format,)
    )
    assert again.best is not None


def test_a_smaller_picture_is_proposed_where_context_is_not_enough() -> None:
    report = fit(MODEL, budget=int(19.4 * GB), context=32768, num_patches=24480)
    change = find_change(MODEL, report)
    assert change is not None
    assert change.pixels is not None
    patches = change.pixels // 196
    again = fit(MODEL, budget=int(19.4 * GB), context=change.context, num_patches=patches, formats=("int4",))
    assert again.best is not None


def test_nothing_is_proposed_where_nothing_helps() -> None:
    report = fit(MODEL, budget=10 * GB, context=32768, num_patches=10764)
    assert find_change(MODEL, report) is None
    assert report.budget < least_bytes(MODEL)


def test_with_the_least_memory_something_can_be_proposed() -> None:
    report = fit(MODEL, budget=least_bytes(MODEL) + 2**26, context=32768, num_patches=10764)
    assert find_change(MODEL, report) is not None
