"""What config.json says of a quantised checkpoint: compressed-tensors' `pack-quantized` layout, and nothing else.

In: the `quantization_config` object. Out: a `Quantization` that says how each module's weight is stored, or one list of
reasons why this runtime cannot read it. `quantization_config` is the inverse. Knows nothing of files.

A module is named as published, without `.weight`. It is stored as the group says that it matches: by its name, by a
pattern (`re:`), or by its class (`Linear`), in this order; what `ignore` matches is stored plain. Norms, biases and
routers are never quantised, whatever a target says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from tusi.core.types import WeightFormat
from tusi.quant.search import Bits

_METHOD, _FORMAT = "compressed-tensors", "pack-quantized"
# Keys of the object and of a group's weights that change nothing here, or that must be off.
_KNOWN = {"quant_method", "format", "config_groups", "ignore", "quantization_status", "version",
          "global_compression_ratio"}  # fmt: skip
_WEIGHT_KNOWN = {"num_bits", "type", "strategy", "group_size", "symmetric", "observer", "observer_kwargs",
                 "block_structure", "scale_dtype", "zp_dtype"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class QuantizationGroup:
    """Modules stored alike. targets: names, `re:` patterns or class names."""

    num_bits: Bits
    group_size: int
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the weights of a checkpoint are stored."""

    groups: tuple[QuantizationGroup, ...]
    ignore: tuple[str, ...] = ()

    @property
    def weight_format(self) -> WeightFormat:
        """What the whole is called: the format of the decoder's matrices."""
        group = self.group_of("model.layers.0.self_attn.o_proj", "matrix") or self.groups[0]
        return "int4" if group.num_bits == 4 else "int8"

    def group_of(self, module: str, kind: str) -> QuantizationGroup | None:
        """The group that a module belongs to, None for one that is stored plain. kind: its `key_table.Kind`."""
        class_name = "Embedding" if kind == "embedding" else "Linear"
        if kind == "exact" or any(_matches(module, class_name, entry) for entry in self.ignore):
            return None
        # Names before patterns before classes, as compressed-tensors and vLLM look them up.
        for rank in range(3):
            for group in self.groups:
                if any(_rank(t) == rank and _matches(module, class_name, t) for t in group.targets):
                    return group
        return None


def _rank(target: str) -> int:
    return 1 if target.startswith("re:") else 0 if "." in target or target == "lm_head" else 2


def _matches(module: str, class_name: str, target: str) -> bool:
    if target.startswith("re:"):
        return re.match(target[3:], module) is not None
    return target in (module, class_name)


def quantization_config(quantization: Quantization) -> dict[str, Any]:
    """The object for config.json that `parse_quantization` reads back to an equal value."""
    return {
        "quant_method": _METHOD,
        "format": _FORMAT,
        "quantization_status": "compressed",
        "config_groups": {
            f"group_{number}": {
                "targets": list(group.targets),
                "weights": {
                    "num_bits": group.num_bits,
                    "type": "int",
                    "strategy": "group",
                    "group_size": group.group_size,
                    "symmetric": True,
                    "dynamic": False,
                    "actorder": None,
                },
                "input_activations": None,
                "output_activations": None,
            }
            for number, group in enumerate(quantization.groups)
        },
        "ignore": list(quantization.ignore),
        "kv_cache_scheme": None,
    }


def parse_quantization(raw: object) -> tuple[Quantization | None, list[str]]:
    """The quantisation, or every reason why it cannot be read; neither for an absent or empty object."""
    if not raw:
        return None, []
    if not isinstance(raw, dict):
        return None, [f"quantization_config is {type(raw).__name__}, not an object"]
    method, layout = raw.get("quant_method"), raw.get("format")
    if method != _METHOD or layout != _FORMAT:
        return None, [
            f"quantization_config is {method!r} with format {layout!r}; of quantised checkpoints only {_METHOD} "
            f"{_FORMAT} is read. Take the bf16 checkpoint and quantise it with `tusi quantize`"
        ]
    problems = [
        f"quantization_config.{key} is {str(raw[key])[:60]!r}, which is not implemented"
        for key in sorted(set(raw) - _KNOWN)
        if not _is_off(raw[key])
    ]
    named = raw.get("config_groups")
    groups = [_group(name, group, problems) for name, group in (named.items() if isinstance(named, dict) else ())]
    if not groups:
        problems.append("quantization_config.config_groups names no group of weights")
    ignore = _strings(raw.get("ignore") or [], "ignore", problems)
    if problems:
        return None, problems
    return Quantization(tuple(group for group in groups if group is not None), ignore), []


def _group(name: object, raw: object, problems: list[str]) -> QuantizationGroup | None:
    where = f"config_groups.{name}"
    weights = raw.get("weights") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(weights, dict):
        problems.append(f"quantization_config.{where} has no weights")
        return None
    before = len(problems)
    for key in sorted(set(raw) - {"targets", "weights"}):
        if not _is_off(raw[key]) and (key, raw[key]) != ("format", _FORMAT):
            problems.append(
                f"quantization_config.{where}.{key} is {str(raw[key])[:60]!r}; only weights are quantised here"
            )
    expected: Mapping[str, tuple[object, ...]] = {
        "num_bits": (4, 8), "type": ("int", None), "strategy": ("group",), "symmetric": (True, None),
    }  # fmt: skip
    for key, values in expected.items():
        if (value := weights.get(key)) not in values or (key == "num_bits" and type(value) is not int):
            wanted = " or ".join(str(v) for v in values if v is not None)
            problems.append(f"quantization_config.{where}.weights.{key} is {value!r}; only {wanted} is implemented")
    for key in sorted(set(weights) - _WEIGHT_KNOWN):
        # Activation order decides the codes; with "static" or "weight" the groups stay where they are.
        if not _is_off(weights[key]) and (key, weights[key]) not in (("actorder", "static"), ("actorder", "weight")):
            problems.append(f"quantization_config.{where}.weights.{key} is {weights[key]!r}, which is not implemented")
    size = weights.get("group_size")
    if type(size) is not int or not 1 <= size <= 1 << 20:
        problems.append(f"quantization_config.{where}.weights.group_size is {size!r}, not a whole number above 0")
    targets = _strings(raw.get("targets") or [], f"{where}.targets", problems)
    if len(problems) > before:
        return None
    return QuantizationGroup(cast(Bits, weights["num_bits"]), cast(int, size), targets)


def _is_off(value: object) -> bool:
    return value in (None, False, "", [], {})


def _strings(raw: object, where: str, problems: list[str]) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(isinstance(entry, str) for entry in raw):
        problems.append(f"quantization_config.{where} is not a list of strings")
        return ()
    for entry in raw:
        if entry.startswith("re:"):
            try:
                re.compile(entry[3:])
            except re.error as error:
                problems.append(f"quantization_config.{where} holds the pattern {entry!r}, which is unsound ({error})")
    return tuple(raw)
