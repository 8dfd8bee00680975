"""The pages about tusi-mini show what docs/tusi-mini.json says, of the weights that are shipped, and nothing else."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tusi.evals.drift import DriftCell
from tusi.evals.report import make_report
from tusi.evals.results import SampleResult
from tusi.models import embedded
from tusi.models.manifest import read_manifest
from tusi.tasks.world import FAMILIES
from tusi.tasks.world.generate import WORLD_VERSION

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "tusi-mini"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


card = load("card")


def report(rights: dict[str, int]) -> dict[str, Any]:
    """Of each family, ten samples at every difficulty, the first so many of them right."""
    return make_report(
        SampleResult(
            task=f"world/{family}/eval",
            index=10 * level + number,
            labels={"family": family, "difficulty": level},
            score=float(number < right),
            outcome="answered",
        )
        for family, right in rights.items()
        for level in range(1, 6)
        for number in range(10)
    ).as_json()


@pytest.fixture
def scores() -> dict[str, Any]:
    whole = report(dict.fromkeys(FAMILIES, 7))
    drift = DriftCell(
        samples=1, tokens=90, agreement=0.98765, kl=0.00123, kl_p99=0.1, kl_max=0.2, logprob=-0.1, other_logprob=-0.2
    )
    drifts = {"all": {name: getattr(drift, name) for name in ("tokens", "agreement", "kl")}}
    reports = dict.fromkeys(("eval", "heldout_style", "heldout_concepts", "int8"), whole)
    reports |= {"no_tools": report({"zoom": 2, "tool_use": 1}), "int4": report(dict.fromkeys(FAMILIES, 6))}
    reports |= {"drift_int8": drifts, "drift_int4": drifts}
    commands = {name: [f"tusi eval world {name}"] for name in reports}
    return {"reports": reports, "commands": commands}


def test_the_readme_shows_every_family_and_level(scores: dict[str, Any]) -> None:
    for language in ("en", "zh"):
        lines = card.readme_block(scores, language).splitlines()
        rows = [line for line in lines if line.startswith("|")]
        assert len(rows) == 2 + len(FAMILIES) + 1
        assert {row.count("|") for row in rows} == {10}
        assert rows[2].count("70 (40-89)") == 5  # ten samples a level
        assert rows[2].count("70 (52-83)") == 3  # thirty at levels 1 to 3: trained, artwork, things
        assert "20 (10-37)" in lines[-1], "tools withheld"
        assert "60 (54-65)" in lines[-1], "int4"


def test_the_card_shows_every_piece_with_its_command(scores: dict[str, Any]) -> None:
    block = card.card_block(scores)
    for name in scores["reports"]:
        assert f"tusi eval world {name}\n" in block
    assert "| all | 90 | 98.77 | 0.00123 |" in block
    assert "| thinking with images | 20 (6-51) |" in block


def test_examples_become_commands_pictures_and_a_program() -> None:
    entries = [
        {"name": "find-all", "picture": "pictures/a.png", "question": "Box all.", "story": True},
        {"name": "count", "picture": "pictures/b.png", "question": "How many?", "story": False},
    ]
    commands = card.example_commands(entries, "en")
    assert 'tusi ask examples/pictures/a.png "Box all."\n' in commands
    assert "(docs/pictures/find-all.png)" in commands
    assert "b.png" not in commands
    program = card.example_program(entries)
    assert '"examples/pictures/b.png"' in program
    assert '"How many?"' in program


def test_a_block_replaces_what_stood_there() -> None:
    begin, end = card.markers("scores")
    once = card.with_block(f"before\n{begin}\nold\n{end}\nafter\n", "scores", "new")
    assert once == f"before\n{begin}\n\nnew\n\n{end}\nafter\n"
    assert card.with_block(once, "scores", "new") == once


@pytest.mark.parametrize("order", [(), (0,), (1, 0), (0, 1, 0, 1)])
def test_a_page_without_one_place_for_it_is_refused(order: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="once each"):
        card.with_block("".join(card.markers("scores")[which] for which in order), "scores", "new")


@pytest.mark.skipif(not embedded.is_embedded_there(), reason="no tusi-mini is shipped in this tree")
def test_pages_and_scores_are_of_the_shipped_weights() -> None:
    scores = json.loads(card.SCORES.read_text(encoding="utf-8"))
    manifest = read_manifest(embedded.embedded_folder())
    assert scores["weights_sha256"] == manifest.files["model.safetensors"].sha256
    assert scores["world_version"] == WORLD_VERSION
    for path, page in card.pages(scores, json.loads(card.QUESTIONS.read_text(encoding="utf-8"))).items():
        assert page == path.read_text(encoding="utf-8"), path.name
    for report_ in (scores["reports"][split] for split in ("eval", "heldout_style", "heldout_concepts")):
        assert set(report_) == {*FAMILIES, "all"}
        assert all(cells["all"]["count"] >= 300 for cells in report_.values())
