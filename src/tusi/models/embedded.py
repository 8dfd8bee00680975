"""The model that comes inside the package: tusi-mini, and where its folder lies.

It is small enough (MAX_BYTES) to be part of every installation and is what all commands use when no model is named.
"""

from __future__ import annotations

from pathlib import Path

from tusi.core.env import TUSI_MODEL
from tusi.core.errors import ConfigError

EMBEDDED_MODEL = "tusi-mini"
"""Its name, wherever a model is named. A folder that happens to be called so is reached as `./tusi-mini`."""

MAX_BYTES = 16 * 10**6
"""What all files of the embedded model may take together."""

FOLDER = Path(__file__).parent / "data" / EMBEDDED_MODEL


def default_model() -> str:
    """The model that is meant when none is named: TUSI_MODEL, else the embedded one."""
    return TUSI_MODEL.get() or EMBEDDED_MODEL


def is_embedded_there() -> bool:
    """Whether this installation has the embedded model; one from a source tree may lack it."""
    return (FOLDER / "config.json").is_file()


def embedded_folder() -> Path:
    """The embedded model's checkpoint folder. Raises ConfigError, naming the other choices, if it is not there."""
    if is_embedded_there():
        return FOLDER
    raise ConfigError(
        f"no model is chosen, and this installation comes without {EMBEDDED_MODEL} (looked in {FOLDER}). "
        "Give --model (or set TUSI_MODEL) to one of:\n"
        "  a checkpoint folder:   --model path/to/folder\n"
        "  a pulled model:        tusi pull baidu/ERNIE-4.5-VL-28B-A3B-Thinking, then --model with that name\n"
        "                         (59 GB; `tusi fit baidu/ERNIE-4.5-VL-28B-A3B-Thinking` tells what fits here)\n"
        "  noise, for a test:     --model random"
    )
