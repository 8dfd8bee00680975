"""The environment variables that Tusi reads, all of them, in one table.

Nothing else in the package looks at `os.environ`. A value that does not parse is an error, never a default.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from tusi.core.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Variable(Generic[T]):
    """One environment variable: its name, how it is read, what it is when unset, one sentence of help."""

    name: str
    parse: Callable[[str], T]
    default: T
    help: str

    def get(self, environ: Mapping[str, str] | None = None) -> T:
        """Return the parsed value, or the default when unset or empty. Raises ConfigError if it does not parse."""
        raw = (os.environ if environ is None else environ).get(self.name, "")
        if not raw:
            return self.default
        try:
            return self.parse(raw)
        except ValueError as error:
            raise ConfigError(
                f"environment variable {self.name}={raw!r} cannot be read ({error}). {self.help} "
                f"Correct it or unset it."
            ) from error

    def source(self, environ: Mapping[str, str] | None = None) -> str:
        """Where get() takes its value from: "environment" or "default"."""
        return "environment" if (os.environ if environ is None else environ).get(self.name) else "default"


def child_environment(**changes: str) -> dict[str, str]:
    """The environment for a process that we start: ours, changed."""
    return {**os.environ, **changes}


def _positive_int(raw: str) -> int:
    value = int(raw)
    if value < 1:
        raise ValueError("must be 1 or more")
    return value


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(raw: str) -> str:
        if raw not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return raw

    return parse


TUSI_ISA: Variable[str | None] = Variable(
    name="TUSI_ISA",
    parse=_one_of("generic", "avx2", "avx512"),
    default=None,
    help="Forces one set of native kernels (generic, avx2, avx512) instead of the best this CPU has.",
)
TUSI_NUM_THREADS: Variable[int | None] = Variable(
    name="TUSI_NUM_THREADS",
    parse=_positive_int,
    default=None,
    help="Threads of the native kernels; the physical cores this process may use, if unset.",
)
TUSI_CACHE: Variable[str | None] = Variable(
    name="TUSI_CACHE",
    parse=str,
    default=None,
    help="Folder for downloaded models; ~/.cache/tusi, if unset.",
)
TUSI_MODEL: Variable[str | None] = Variable(
    name="TUSI_MODEL",
    parse=str,
    default=None,
    help="Model that is used when none is named; tusi-mini, which comes with the package, if unset.",
)
TUSI_API_KEY: Variable[str | None] = Variable(
    name="TUSI_API_KEY",
    parse=str,
    default=None,
    help="What clients of `tusi serve` must send, if --api-key is not given.",
)
TUSI_WEIGHT_MEMORY: Variable[str] = Variable(
    name="TUSI_WEIGHT_MEMORY",
    parse=_one_of("anonymous", "mmap"),
    default="anonymous",
    help="Where packed weights lie: anonymous (read into huge pages) or mmap (the file's own pages, which processes "
    "share; it must not be cut meanwhile).",
)
HF_ENDPOINT: Variable[str] = Variable(
    name="HF_ENDPOINT",
    parse=str,
    default="https://huggingface.co",
    help="Hub, or mirror of it, that models are pulled from.",
)
HF_TOKEN: Variable[str | None] = Variable(
    name="HF_TOKEN", parse=str, default=None, help="Access token that is sent to the Hub."
)

VARIABLES: tuple[Variable[str | None] | Variable[int | None] | Variable[str], ...] = (
    TUSI_ISA,
    TUSI_NUM_THREADS,
    TUSI_CACHE,
    TUSI_MODEL,
    TUSI_API_KEY,
    TUSI_WEIGHT_MEMORY,
    HF_ENDPOINT,
    HF_TOKEN,
)
