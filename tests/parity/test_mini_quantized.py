"""What `tusi quantize` costs tusi-mini, token by token on the expert's traces: hardly anything at 8 bits, more at 4."""

from __future__ import annotations

from pathlib import Path

from tests.fixtures.mini import mini_model
from tusi.cli.drift import TeacherForced
from tusi.evals.drift import DriftCell, measure_drift
from tusi.evals.world import world_tasks
from tusi.models import embedded
from tusi.models.quantize import quantize_checkpoint
from tusi.quant.search import Bits

SAMPLES = 3
# Least share of the same likeliest token, largest mean KL in nats. Random weights are sure of nothing, so that small
# errors change their minds: with them only gross mistakes show.
TRAINED: dict[Bits, tuple[float, float]] = {8: (0.97, 0.01), 4: (0.85, 0.2)}
RANDOM: dict[Bits, tuple[float, float]] = {8: (0.85, 0.03), 4: (0.2, 0.8)}


def test_the_top_token_survives(tmp_path: Path) -> None:
    source = mini_model(tmp_path / "mini")
    bounds = TRAINED if embedded.is_embedded_there() else RANDOM
    cells = {bits: drift_of(source, tmp_path / f"int{bits}", bits) for bits in bounds}
    for bits, (agreement, kl) in bounds.items():
        assert cells[bits].agreement >= agreement
        assert 0 < cells[bits].kl <= kl
    assert cells[8].kl < cells[4].kl


def drift_of(source: Path, out: Path, bits: Bits) -> DriftCell:
    quantize_checkpoint(source, out, bits=bits)
    models = TeacherForced(str(source), "fp32"), TeacherForced(str(out), "auto")
    return measure_drift(*models, world_tasks(samples=SAMPLES)).families["all"]
