"""What weight formats are called on the command line: our names, and the family's for weight-only quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from tusi.core.types import WeightFormatChoice

FamilyFormat = Literal["wint4", "wint8"]
AnyFormat = Literal[WeightFormatChoice, FamilyFormat]

QUANTIZED: Mapping[str, Literal["int4", "int8"]] = {"wint4": "int4", "wint8": "int8", "int4": "int4", "int8": "int8"}
"""Quantized formats by either name."""


def our_name(name: AnyFormat) -> WeightFormatChoice:
    """A format by our name."""
    return QUANTIZED[name] if name == "wint4" or name == "wint8" else name


def bits_of(name: FamilyFormat) -> Literal[4, 8]:
    """How many bits a weight of it has."""
    return 4 if QUANTIZED[name] == "int4" else 8
