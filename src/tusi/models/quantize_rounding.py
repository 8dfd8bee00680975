"""How `quantize` turns a matrix into codes: alone, or with regard to what samples multiply it with.

In: a step of the plan and its matrix. Out: codes and scales.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tusi.models.calibration import Calibration, CalibrationSamples
from tusi.models.checkpoint import Checkpoint
from tusi.models.quantize_plan import Step
from tusi.quant.compensated import Factor, quantize_compensated
from tusi.quant.search import quantize_searched
from tusi.quant.weights import F32, I8, U16


class Rounding:
    """One run's. folder: where a stopped run has kept how far its samples had come.

    uncalibrated: matrices of this shard that too few tokens reached. tell: called with what is being done.
    """

    def __init__(
        self, checkpoint: Checkpoint, group_size: int, samples: CalibrationSamples | None, folder: Path
    ) -> None:
        self.uncalibrated: list[str] = []
        self.tell: Callable[[str], None] = lambda _: None
        self._checkpoint = checkpoint
        self._group_size = group_size
        self._samples = samples
        self._folder = folder
        self._calibration: Calibration | None = None

    def prepare(self, steps: Iterable[Step]) -> None:
        """Read the samples, or what a stopped run has kept of them, if one of these steps needs them.

        Raises ConfigError for samples that cannot be used.
        """
        layers = [step.layer for step in steps if step.kind == "matrix" and step.layer is not None]
        if self._samples is not None and layers:
            kept = Calibration.resume(self._checkpoint, self._folder, min(layers), self._say)
            self._calibration = kept or Calibration.begin(self._checkpoint, self._samples, self._say)

    def quantize(self, step: Step, matrix: F32 | U16) -> tuple[I8, U16]:
        """Codes and scales of a step's matrix."""
        assert step.bits is not None
        factor = self._factor(step)
        if factor is None:
            return quantize_searched(matrix, step.bits, self._group_size)
        return quantize_compensated(matrix, factor, step.bits, self._group_size)

    def end_shard(self) -> None:
        """What is needed to go on from here is kept."""
        if self._calibration is not None:
            self._calibration.save(self._folder)

    def _factor(self, step: Step) -> Factor | None:
        if self._calibration is None or step.kind != "matrix" or step.layer is None:
            return None
        factor = self._calibration.factor(step.layer, (step.memory, step.expert))
        if factor is None:
            self.uncalibrated.append(step.name)
        return factor

    def _say(self, what: str) -> None:
        self.tell(what)
