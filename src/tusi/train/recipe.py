"""Recipes: one YAML file says everything about a run. Read strictly; an unknown key or a wrong type is an error.

Values come from the file, then from `section.key=value` overrides of the command line, and nowhere else.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tusi.core.errors import ConfigError
from tusi.models.embedded import EMBEDDED_MODEL, embedded_folder
from tusi.train.device import DeviceName


class Section(BaseModel):
    """A part of a recipe: frozen, and closed to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(Section):
    """The checkpoint folder to start from, or `tusi-mini` for the model that comes with the package.

    random_init: keep its configuration and tokenizer only and draw the weights anew from `seed`.
    expert_bias_rate: how fast the correction biases move towards balance; 0 freezes them (ERNIEKit does in SFT).
    """

    path: Path
    random_init: bool = False
    expert_bias_rate: float = Field(0.0, ge=0)

    @field_validator("path", mode="before")
    @classmethod
    def _embedded(cls, value: object) -> object:
        return embedded_folder() if value == EMBEDDED_MODEL else value


class SourceSection(Section):
    """One source of samples and how often it is drawn.

    task: `dense` (many questions a picture), `sparse` (the same about one or two things), `lookup` (lists of names and
    places to find in a dense picture), `echo` (lists to repeat, text alone), or a family of the world.
    is_told: without pictures, what there is to see told in words (families only).
    """

    task: str
    weight: float = Field(1.0, gt=0)
    languages: tuple[Literal["zh", "en"], ...] = ("zh", "en")
    min_difficulty: int = Field(1, ge=1, le=5)
    max_difficulty: int = Field(5, ge=1, le=5)
    is_told: bool = False


class DataSection(Section):
    """Where samples come from. ramp_steps: steps over which the hardest allowed difficulty rises to its maximum."""

    sources: tuple[SourceSection, ...] = Field(min_length=1)
    samples_per_batch: int = Field(16, ge=1)
    ramp_steps: int = Field(0, ge=0)
    max_tokens: int = Field(2048, ge=16)


class OptimSection(Section):
    """Optimizer and cosine schedule. gate_lr_ratio and vit_lr_ratio scale the rate of routers and vision tower.

    name: `adamw`, or `muon` for the hidden matrices with AdamW for the rest; betas[1] is then Muon's momentum.
    lr falls from its peak after warmup_steps to min_lr at max_steps.
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(gt=0)
    min_lr: float = Field(0.0, ge=0)
    warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    max_grad_norm: float = Field(1.0, gt=0)
    accumulation_steps: int = Field(1, ge=1)
    gate_lr_ratio: float = Field(1.0, gt=0)
    vit_lr_ratio: float = Field(1.0, gt=0)


class EvalSection(Section):
    """Loss and token accuracy on samples that are never trained on. patience: evaluations without a better loss."""

    every_steps: int = Field(500, ge=1)
    samples: int = Field(64, ge=1)
    patience: int | None = Field(None, ge=1)


class Recipe(Section):
    """A whole run. save_every_steps bounds what a crash can cost.

    device: `auto` takes the GPU if there is one. A run may go on on another device than it began on.
    max_minutes: the run ends by then, with the learning rate at its minimum, if max_steps would take longer.
    num_workers: processes that make batches ahead; 0 makes each when it is needed. The batches are the same.
    objective: `supervised` learns the assistant's turns; `cells` warms up the vision tower on what each cell shows.
    """

    objective: Literal["supervised", "cells"] = "supervised"
    output_dir: Path
    seed: int = 42
    max_steps: int = Field(ge=1)
    max_minutes: float | None = Field(None, gt=0)
    device: DeviceName = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    num_workers: int = Field(0, ge=0, le=64)
    save_every_steps: int = Field(200, ge=1)
    log_every_steps: int = Field(10, ge=1)
    model: ModelSection
    data: DataSection
    optim: OptimSection
    eval: EvalSection = Field(default_factory=EvalSection)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe; overrides are `section.key=value` with YAML values. Raises ConfigError naming every bad key."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (it is a SafeLoader)
    except OSError as error:
        raise ConfigError(f"recipe {path} cannot be read ({error.strerror}); give the path of a YAML file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path} is not YAML: {error}. Correct it there.") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"recipe {path} holds {type(raw).__name__}; expected sections such as `model:` and `optim:`.")
    for override in overrides:
        _apply(raw, override)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"recipe {path}:\n" + "\n".join(_explain(raw, e) for e in error.errors())) from error


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads `1e-5` as a number (YAML 1.2 does, PyYAML's 1.1 wants `1.0e-5`)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def _apply(raw: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    *parents, last = key.split(".")
    if not separator or not last:
        raise ConfigError(
            f"override {override!r} is not of the form section.key=value; write for example optim.lr=1e-4."
        )
    node = raw
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"override {override!r}: {parent} is not a section; check the recipe's keys.")
    node[last] = yaml.load(value, Loader=_Loader)  # noqa: S506 (it is a SafeLoader)


def _explain(raw: dict[str, Any], error: Any) -> str:
    location = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"  {location}: {error['msg'].lower()} (got {error['input']!r})"
    known = _keys_at(error["loc"][:-1])
    close = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
    return f"  {location}: unknown key; {hint}"


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Recipe
    sections: dict[str, type[BaseModel]] = {
        "model": ModelSection,
        "data": DataSection,
        "optim": OptimSection,
        "eval": EvalSection,
    }
    for part in location:
        model = SourceSection if part == "sources" else sections.get(str(part), model)
    return sorted(model.model_fields)
