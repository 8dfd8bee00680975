"""Types that several layers share and none of them owns."""

from __future__ import annotations

from typing import Literal

WeightFormat = Literal["fp32", "bf16", "int8", "int4"]
"""How a weight matrix lies in memory. Activations lie there as float32, whatever a product rounds them to."""

Modality = Literal["image", "video"]

WeightMemory = Literal["anonymous", "mmap"]
"""Where packed weights lie. anonymous: read into memory of our own. mmap: the file's pages themselves, shared by all
processes that map it."""

Activations = Literal["int8", "float32"]
"""What products over integer weights do with their input: round it to eight bits, or take it as it is."""

WeightFormatChoice = Literal["auto", "fp32", "bf16", "int8", "int4"]
"""What a user may ask for; auto takes a quantised checkpoint as it is stored and any other as bf16."""
