"""Recipes are read strictly, and every mistake is named with its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tusi.core.errors import ConfigError
from tusi.models import embedded
from tusi.train.recipe import load_recipe

GOOD = """
output_dir: runs/test
max_steps: 10
model: {path: checkpoints/mini}
data: {sources: [{task: grounding, weight: 2}]}
optim: {lr: 1e-5, betas: [0.9, 0.95]}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD), ["optim.min_lr=2E-6", "optim.weight_decay=.5e-1"])
    assert (recipe.optim.lr, recipe.optim.min_lr, recipe.optim.weight_decay) == (1e-5, 2e-6, 0.05)


def test_the_embedded_model_is_named_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "FOLDER", tmp_path / "mini")
    with pytest.raises(ConfigError, match="comes without tusi-mini"):
        load_recipe(write(tmp_path, GOOD), ["model.path=tusi-mini"])
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "config.json").write_text("{}")
    assert load_recipe(write(tmp_path, GOOD), ["model.path=tusi-mini"]).model.path == tmp_path / "mini"
    assert load_recipe(write(tmp_path, GOOD), ["model.path=./tusi-mini"]).model.path == Path("tusi-mini")


def test_overrides_come_after_the_file(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD), ["max_steps=7", "eval.patience=2"])
    assert (recipe.max_steps, recipe.eval.patience) == (7, 2)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim.warmup_step=3", r"optim.warmup_step: unknown key; did you mean 'warmup_steps'\?"),
        ("optim.lr=fast", r"optim.lr: .*number.*'fast'"),
        ("optim.lr=-1", r"optim.lr: .*greater than 0"),
        ("data.colour=red", r"data.colour: unknown key; known keys: .*sources"),
        ("max_steps", r"not of the form section.key=value"),
        ("max_steps.deep=1", r"max_steps is not a section"),
    ],
)
def test_a_bad_override_says_what_to_do(tmp_path: Path, override: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_recipe(write(tmp_path, GOOD), [override])


def test_every_mistake_is_listed_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("max_steps: 10", "max_steps: zero").replace("task:", "taks:")
    with pytest.raises(ConfigError) as caught:
        load_recipe(write(tmp_path, text))
    message = str(caught.value)
    assert "max_steps" in message
    assert "did you mean 'task'?" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [("[1, 2]", "holds list; expected sections"), ("a: [", "is not YAML"), ("\x00", "is not YAML")],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_recipe(write(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(tmp_path / "none.yaml")
