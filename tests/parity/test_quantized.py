"""A quantised checkpoint answers as its weights, written out in float32, do: here and in transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.prompts import build_prompt
from tests.fixtures.quantized import write_dequantized
from tests.fixtures.transformers_model import load_transformers, reference_logits
from tusi.models.full_sequence import full_sequence_logits
from tusi.models.model import Ernie4_5_VLMoeForConditionalGeneration as Model
from tusi.models.quantize import quantize_checkpoint
from tusi.models.random_checkpoint import tiny_config, with_layers, write_random_checkpoint
from tusi.quant.search import Bits

# Both multiply the same float32 numbers; only the order of sums differs.
ATOL = 1e-4
SEGMENTS = (5, ("image", (1, 6, 4)), 9, ("video", (4, 4, 4)), 12)


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize(("bits", "group_size"), [(4, 32), (4, 64), (8, 32)])
def test_logits_are_those_of_the_dequantised_weights(
    bits: Bits, group_size: int, is_tied: bool, tmp_path: Path
) -> None:
    text = with_layers(tiny_config().text_config, 3)  # two sparse layers, so that a wrong route would show
    config = tiny_config(text=text, tie_word_embeddings=is_tied)
    source = write_random_checkpoint(tmp_path / "m", config=config, layout="transformers")
    quantize_checkpoint(source, tmp_path / "q", bits=bits, group_size=group_size)
    plain = write_dequantized(tmp_path / "q", tmp_path / "plain", layout="transformers")
    prompt = build_prompt(config, SEGMENTS)
    logits = full_sequence_logits(Model.from_pretrained(tmp_path / "q", activations="float32"), prompt)
    expected = full_sequence_logits(Model.from_pretrained(plain, "fp32"), prompt)
    reference, _ = reference_logits(load_transformers(plain), prompt)
    assert expected.std() > 0.5, "degenerate logits would make this comparison worth nothing"
    np.testing.assert_allclose(logits, expected, atol=ATOL, rtol=0)
    np.testing.assert_allclose(logits, reference, atol=ATOL, rtol=0)
    unrounded = full_sequence_logits(Model.from_pretrained(source, "fp32"), prompt)
    assert np.abs(unrounded - expected).max() > 100 * ATOL, "rounding must be seen, or nothing was rounded"
