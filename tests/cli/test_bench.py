from __future__ import annotations

import json
from typing import NoReturn

import pytest

from tests.cli.conftest import Run
from tusi.bench import ceilings
from tusi.bench.subject import Subject
from tusi.core.errors import ConfigError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "READ_BYTES", 1 << 22)
    monkeypatch.setattr(ceilings, "READ_ROUNDS", 2)


ARGS = ("bench", "--shape", "tiny", "--rounds", "1", "--tokens", "2", "--context", "256", "--prompts", "20")


def test_the_table_has_a_line_a_measurement(run: Run) -> None:
    code, out, err = run(*ARGS, "--sequences", "1,2", "--image", "56x56")
    assert code == 0
    for line in ("decode 1 sequence ", "decode 2 sequences", "prefill 20 tokens", "vision tower", "memory:", "peaks"):
        assert line in out
    assert "measuring: decode, 2 together" in err
    assert max(len(line) for line in out.splitlines()) <= 120


def test_json_holds_the_same(run: Run) -> None:
    code, out, _ = run(*ARGS, "--sequences", "2", "--image", "none", "--format", "wint8", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["weight_format"] == "int8"
    assert report["picture"] is None
    assert [entry["name"] for entry in report["text"]] == ["decode 2 sequences", "prefill 20 tokens"]
    assert set(report["text"][0]["tokens_per_second"]) == {"median", "low", "high", "values"}
    assert report["machine"]["threads"] >= 1


def test_activations_are_those_that_were_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def measure(subject: Subject, *rest: object, **more: object) -> NoReturn:
        seen.append(subject.model.language_model.layers[0].self_attn.qkv_proj.activations)
        raise ConfigError("enough seen")

    monkeypatch.setattr("tusi.cli.bench.measure", measure)
    for options in ((), ("--activations", "float32")):
        run(*ARGS, *options)
    assert seen == ["int8", "float32"]


def test_nothing_but_what_is_asked_for(run: Run) -> None:
    code, out, _ = run(*ARGS[:-1], "none", "--sequences", "none", "--image", "none")
    assert code == 0
    assert "decode" not in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("random", "--shape", "tiny"), "a run measures one"),
        (("--shape", "29b"), "expected one of 28b"),
        (("--sequences", "0"), "expected whole numbers"),
        (("--prompts", "a"), "--prompts is 'a'"),
        (("--image", "big"), "expected WIDTHxHEIGHT"),
        (("--shape", "tiny", "--weight-memory", "mmap"), "random ones are made in memory"),
        (("--shape", "tiny", "--format", "bf16", "--activations", "int8"), "the weights are bf16"),
    ],
)
def test_wrong_usage_says_what_to_do(run: Run, args: tuple[str, ...], message: str) -> None:
    code, _, err = run("bench", *args)
    assert code != 0
    assert message in err


def test_a_shape_that_does_not_fit_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from tusi.core import machine

    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(total=2**33, available=2**33, limit=None))
    code, _, err = run("bench", "--shape", "28b")
    assert code != 0
    assert "are free here" in err
    assert "tusi fit" in err
