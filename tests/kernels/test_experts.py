"""The mixture of experts in one call: each instruction set against the slow twin, bit for bit with int8 activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.helpers import assert_refuses_bad_arrays, each_isa, normal
from tests.kernels.test_packed import packed
from tusi import kernels
from tusi.kernels import reference, reference_packed

WIDTH, COUNT, TOP_K = 40, 5, 2


def experts(count: int, inner: int, group_size: int, bits: int, width: int = WIDTH) -> kernels.Experts:
    padded = -(-inner // 16) * 16
    arrays = []
    for n, k in ((2 * padded, width), (width, inner)):
        stacked = [packed(n, k, group_size, bits) for _ in range(count)]
        codes = np.stack([np.roll(codes, e, axis=0) for e, (codes, _) in enumerate(stacked)])
        arrays += [codes, np.stack([scales for _, scales in stacked])]
    return kernels.Experts(arrays[0], arrays[1], group_size, arrays[2], arrays[3], group_size, width, inner)


def pool(inner: int, group_size: int, bits: int, seed: int) -> kernels.Pool:
    return kernels.Pool(
        normal(COUNT, WIDTH, seed=seed), normal(COUNT, seed=seed), experts(COUNT, inner, group_size, bits)
    )


@each_isa
@pytest.mark.parametrize("activations", ["int8", "float32"])
@pytest.mark.parametrize(("bits", "group_size"), [(4, 32), (8, 16), (4, 12)])
def test_one_call_is_the_twin(isa: str, activations: Any, bits: int, group_size: int) -> None:
    text, vision = pool(48, group_size, bits, 1), pool(33, group_size, bits, 2)
    shared = experts(1, 24, 8, bits)
    norm_D = normal(WIDTH, seed=3)
    for tokens in (0, 1, 2, 13):
        x_TD = normal(tokens, WIDTH)
        mask_T = (np.arange(tokens) % 3 == 1).astype(np.uint8)
        for options in (
            {"vision_mask_T": mask_T},
            {"vision_mask_T": None},
            {"vision_mask_T": mask_T, "norm_D": norm_D, "eps": 1e-5},
        ):
            common: Any = {"top_k": TOP_K, "norm_min": 1e-12, "activations": activations, **options}
            got = kernels.moe(x_TD, text, vision, shared, isa=isa, **common)
            chosen = reference_packed.moe(x_TD, text, vision, shared, **common)
            np.testing.assert_array_equal(got[2], chosen[2])
            np.testing.assert_allclose(got[1], chosen[1], atol=1e-5)
            expected = reference_packed.moe(x_TD, text, vision, shared, routing=got[1:], **common)[0]
            if activations == "int8" and "norm_D" not in options:
                np.testing.assert_array_equal(got[0], expected)
            else:
                # A norm's last bits may turn a rounded activation by one step.
                np.testing.assert_allclose(
                    got[0], expected, atol=0.02 * max(1.0, float(np.abs(expected).max(initial=0)))
                )
            out = x_TD.copy()
            added = kernels.moe(out, text, vision, shared, isa=isa, add=True, out=out, **common)[0]
            assert added is out
            np.testing.assert_array_equal(out, x_TD + got[0])


def plain_experts(count: int, inner: int, bits: int, seed: int = 0) -> kernels.PlainExperts:
    arrays = normal(count, 2 * inner, WIDTH, seed=seed), normal(count, WIDTH, inner, seed=seed + 1)
    return kernels.PlainExperts(*(reference.f32_to_bf16(array) if bits == 16 else array for array in arrays))


def plain_pool(inner: int, bits: int, seed: int) -> kernels.Pool:
    return kernels.Pool(
        normal(COUNT, WIDTH, seed=seed), normal(COUNT, seed=seed), plain_experts(COUNT, inner, bits, seed)
    )


@each_isa
@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize(("text_inner", "vision_inner", "shared_inner"), [(48, 33, 24), (1, 101, 7), (130, 16, 96)])
def test_plain_experts_in_one_call_are_the_twin(
    isa: str, bits: int, text_inner: int, vision_inner: int, shared_inner: int
) -> None:
    text, vision = plain_pool(text_inner, bits, 1), plain_pool(vision_inner, bits, 2)
    shared, norm_D = plain_experts(1, shared_inner, bits, 9), normal(WIDTH, seed=3)
    for tokens in (0, 1, 2, 13, 130):
        x_TD, mask_T = normal(tokens, WIDTH), (np.arange(tokens) % 3 == 1).astype(np.uint8)
        for options in ({"vision_mask_T": mask_T}, {}, {"vision_mask_T": mask_T, "norm_D": norm_D, "eps": 1e-5}):
            common: Any = {"top_k": TOP_K, "norm_min": 1e-12, **options}
            got = kernels.moe(x_TD, text, vision, shared, isa=isa, **common)
            expected = reference_packed.moe(x_TD, text, vision, shared, routing=got[1:], **common)
            np.testing.assert_allclose(got[0], expected[0], rtol=1e-4, atol=2e-3)
            np.testing.assert_array_equal(got[2], reference_packed.moe(x_TD, text, vision, shared, **common)[2])
            out = x_TD.copy()
            assert kernels.moe(out, text, vision, shared, isa=isa, add=True, out=out, **common)[0] is out
            np.testing.assert_array_equal(out, x_TD + got[0])


@each_isa
def test_packed_and_plain_experts_may_meet(isa: str) -> None:
    text, vision, shared = pool(48, 16, 4, 1), plain_pool(50, 16, 2), plain_experts(1, 24, 32)
    x_TD, mask_T = normal(13, WIDTH), (np.arange(13) % 3 == 1).astype(np.uint8)
    common: Any = {"top_k": TOP_K, "vision_mask_T": mask_T}
    got = kernels.moe(x_TD, text, vision, shared, isa=isa, **common)
    expected = reference_packed.moe(x_TD, text, vision, shared, routing=got[1:], **common)[0]
    np.testing.assert_allclose(got[0], expected, rtol=1e-4, atol=2e-3)


@each_isa
@pytest.mark.parametrize("bits", [16, 32])
def test_a_token_of_plain_experts_is_the_same_alone_and_in_any_batch(isa: str, bits: int) -> None:
    text, vision, shared = plain_pool(48, bits, 1), plain_pool(50, bits, 2), plain_experts(1, 200, bits)
    x_TD, mask_T = normal(140, WIDTH), (np.arange(140) % 3 == 1).astype(np.uint8)
    common: Any = {"top_k": TOP_K, "isa": isa}
    whole = kernels.moe(x_TD, text, vision, shared, vision_mask_T=mask_T, **common)
    before = kernels.num_threads()
    try:
        for threads in (1, 2, 5):
            kernels.set_num_threads(threads)
            for begin, end in ((0, 1), (3, 5), (7, 24), (100, 140), (0, 140)):
                rows = slice(begin, end)
                part = kernels.moe(x_TD[rows], text, vision, shared, vision_mask_T=mask_T[rows], **common)
                for one, of_all in zip(part, whole, strict=True):
                    np.testing.assert_array_equal(one, of_all[rows])
    finally:
        kernels.set_num_threads(before)


def test_plain_experts_of_wrong_shapes_are_refused() -> None:
    good = {"gate_up_E2FD": normal(2, 6, 8), "down_EDF": normal(2, 8, 3)}
    assert_refuses_bad_arrays(kernels.PlainExperts, good)
    for change, message in (
        ({"gate_up_E2FD": normal(2, 5, 8)}, "has 5 rows an expert; expected an even number"),
        ({"gate_up_E2FD": normal(0, 6, 8)}, "gate_up_E2FD holds no expert"),
        ({"down_EDF": normal(2, 8, 4)}, r"down_EDF has shape \(2, 8, 4\); expected \(2, 8, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            kernels.PlainExperts(**{**good, **change})


@each_isa
def test_a_dense_mlp_is_the_shared_expert_alone(isa: str) -> None:
    mlp = experts(1, 48, 32, 4)
    x_TD = normal(7, WIDTH)
    got = kernels.moe(x_TD, None, None, mlp, top_k=0, isa=isa)[0]
    np.testing.assert_array_equal(got, reference_packed.moe(x_TD, None, None, mlp, top_k=0)[0])


def test_wrong_arguments_are_refused() -> None:
    text, shared = pool(32, 32, 4, 1), experts(1, 32, 32, 4)
    x_TD = normal(3, WIDTH)
    for change, message in (
        ({"top_k": 6}, "6 of 5 experts; expected 1 to all of them"),
        ({"vision_mask_T": np.ones(3, np.uint8)}, "needs a text and a vision pool"),
        ({"add": True}, "to add to `out`"),
        ({"activations": "int4"}, "expected int8 or float32"),
        ({"text": None, "shared": None, "top_k": 0}, "neither text nor shared experts"),
        ({"x_TD": normal(3, 32)}, "take vectors of 40; expected 32"),
        ({"shared": experts(2, 32, 32, 4)}, "shared holds several experts"),
    ):
        arguments: Any = {"x_TD": x_TD, "text": text, "vision": None, "shared": shared, "top_k": 2, **change}
        with pytest.raises(ValueError, match=message):
            kernels.moe(**arguments)
    with pytest.raises(ValueError, match="gate_up_codes has shape"):
        kernels.Experts(
            shared.gate_up_codes, shared.gate_up_scales, 32, shared.down_codes, shared.down_scales, 32, WIDTH, 64
        )
