from __future__ import annotations

from typing import get_args

from tusi.cli.weight_formats import QUANTIZED, AnyFormat, FamilyFormat, bits_of, our_name
from tusi.core.types import WeightFormat, WeightFormatChoice


def test_every_name_means_one_of_our_formats() -> None:
    assert {our_name(name) for name in get_args(AnyFormat)} == set(get_args(WeightFormatChoice))
    assert [our_name(name) for name in get_args(WeightFormatChoice)] == list(get_args(WeightFormatChoice))


def test_the_familys_names_say_how_many_bits() -> None:
    assert {name: bits_of(name) for name in get_args(FamilyFormat)} == {"wint4": 4, "wint8": 8}


def test_quantized_formats_go_by_either_name() -> None:
    assert set(QUANTIZED) == {*get_args(FamilyFormat), *(f for f in get_args(WeightFormat) if f.startswith("int"))}
    assert all(our_name(name) == QUANTIZED[name] for name in get_args(FamilyFormat))
