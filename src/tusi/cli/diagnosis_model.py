"""What a model really takes here: loaded, asked for one token, and its memory read from the system."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tusi.backends.local.backend import LocalBackend
from tusi.backends.local.prompts import TextPrompt
from tusi.cli.console import size_text
from tusi.cli.diagnosis import Finding
from tusi.core import machine
from tusi.core.errors import TusiError
from tusi.core.types import WeightFormatChoice
from tusi.engine.sampling_params import SamplingParams

_PROMPT = (3, 4, 5, 6)


def diagnose_model(name: str, dtype: WeightFormatChoice = "auto") -> Iterator[Finding]:
    """Findings about a model; that it cannot be loaded is one of them."""
    before = machine.process_memory().resident
    begin = time.perf_counter()
    try:
        with LocalBackend.load(name, dtype=dtype) as backend:
            ready = time.perf_counter() - begin
            params = SamplingParams(temperature=0.0, max_tokens=1, ignore_eos=True)
            backend.generate_text(TextPrompt(token_ids=_PROMPT), params)
            first = time.perf_counter() - begin - ready
            memory = machine.process_memory()
            yield Finding(section="model", name="model", value=f"{name} ({backend.precision})")
    except TusiError as error:
        # It says itself what to do: another dtype, a shorter context, a download.
        yield Finding(section="model", name="model", value=str(error), level="broken")
        return
    yield Finding(section="model", name="start", value=f"{ready:.2f} s to load, {first:.2f} s to the first token")
    if memory.resident is not None:
        value = size_text(memory.resident)
        if before is not None:
            value += f", {size_text(max(0, memory.resident - before))} of it since it began to load"
        yield Finding(section="model", name="memory, steady", value=value)
    if memory.peak is not None:
        yield Finding(section="model", name="memory, peak", value=size_text(memory.peak))
