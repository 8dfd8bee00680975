"""`tusi quantize`: what it prints, and that the folder is one that the other commands take."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests.cli.conftest import Run


def test_it_says_what_became_what(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "q"
    code, printed, err = run("quantize", str(tiny_model), str(out), "--format", "wint4")
    assert code == 0
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "text experts bf16 int4 / 32 24 147 kB 42 kB" in lines
    assert "vision experts bf16 int4 / 32 24 49 kB 15 kB" in lines
    assert "text routers fp32 fp32 1 2 kB 2 kB always exact" in lines
    assert "lm head bf16 int8 / 32 1 93 kB 49 kB one step finer" in lines
    assert lines[-1] == str(out).replace("  ", " ")
    assert "16 matrices have a width that 32 does not divide" in err
    progress = [line for line in err.splitlines() if " of " in line and line.endswith("kB")]
    assert 5 <= len(progress) <= 10
    assert len({line.split(" of ")[1] for line in progress}) == 1
    assert len(set(progress[-1].split(" of "))) == 1  # all of it
    code, printed, _ = run("fit", str(out), "--context", "1024", "--image", "64x64")
    assert code == 0
    assert "Use: --dtype int4" in printed
    assert "bf16" not in printed


def test_the_other_commands_run_what_was_written(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "q")
    assert run("quantize", str(tiny_model), out, "--format", "wint4")[0] == 0
    Image.new("RGB", (60, 40)).save(tmp_path / "photo.png")
    question = (str(tmp_path / "photo.png"), "What is it?")
    code, printed, err = run("ask", *question, "--model", out, "--max-tokens", "8", "--no-thinking", "--json")
    assert code in (0, 1), err  # 1: a random model may write nothing that is to be shown
    assert json.loads(printed)["usage"]["completion_tokens"] > 0
    code, printed, err = run(
        "eval", "world", "--model", out, "--samples", "1", "--families", "stem", "--max-tokens", "8", "--json"
    )
    assert code == 0, err
    assert json.loads(printed)["stem"]["all"]["failed"] == 0
    code, _, err = run("ask", *question, "--model", out, "--dtype", "bf16")
    assert code == 2
    assert "stored quantised to int4; it is loaded as it is. Ask for auto or int4" in err


def test_eight_bits_and_groups_of_64(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    code, printed, _ = run("quantize", str(tiny_model), str(tmp_path / "q"), "--format", "wint8", "--group-size", "64")
    assert code == 0
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "text experts bf16 int8 / 64 24 147 kB 77 kB" in lines
    assert "lm head bf16 bf16 1 93 kB 93 kB one step finer" in lines


def test_wrong_use(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    code, _, err = run("quantize", str(tiny_model), str(tmp_path / "q"), "--format", "fp8")
    assert code == 2
    assert "'fp8' is not one of 'wint4', 'wint8'" in err
    code, _, err = run("quantize", str(tiny_model), str(tiny_model), "--format", "wint4")
    assert code == 2
    assert "neither an empty folder nor a run of `tusi quantize` that was stopped" in err
    code, _, err = run("quantize", str(tmp_path / "nothing"), str(tmp_path / "q"), "--format", "wint4")
    assert code != 0
    assert "tusi:" in err


def conversations(path: Path, *contents: object) -> Path:
    lines = [json.dumps({"messages": [{"role": "user", "content": content}]}) for content in contents]
    path.write_text("\n".join(lines))
    return path


def test_calibrated_on_a_file_of_text_and_pictures(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    picture = tmp_path / "photo.png"
    Image.new("RGB", (112, 84), (200, 10, 10)).save(picture)
    seen = [{"type": "image_url", "image_url": {"url": str(picture)}}, {"type": "text", "text": "What is it?"}]
    file = conversations(tmp_path / "a.jsonl", seen, "Tell me a long story about a fox and two crows. " * 10, "Unused")
    arguments = ("quantize", str(tiny_model), str(tmp_path / "q"), "--format", "wint4")
    code, printed, err = run(*arguments, "--calibration", str(file), "--calibration-samples", "2")
    assert code == 0, err
    assert "text experts" in printed
    assert "matrices were rounded as without samples, because fewer than 32 of their tokens reached them" in err
    assert "model.layers.1.mlp.experts." in err
    code, _, err = run("drift", str(tiny_model), str(tmp_path / "q"), "--samples", "1", "--families", "stem")
    assert code == 0, err


def test_calibration_files_that_are_refused(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    arguments = ("quantize", str(tiny_model), str(tmp_path / "q"), "--format", "wint4", "--calibration")
    file = tmp_path / "a.jsonl"
    file.write_text("nonsense")
    code, _, err = run(*arguments, str(file))
    assert code == 2
    assert "a.jsonl, line 1 is not JSON" in err
    code, _, err = run(*arguments, str(conversations(file, "word " * 9000)))
    assert code == 2
    assert "conversation 1 has " in err
    assert "the model takes 8192" in err
    missing = [{"type": "image_url", "image_url": {"url": str(tmp_path / "none.png")}}]
    code, _, err = run(*arguments, str(conversations(file, missing)))
    assert code == 2
    assert "conversation 1: " in err
    assert "none.png" in err
    code, _, err = run(*arguments, str(tmp_path / "none.jsonl"))
    assert code == 2
    assert "cannot be read" in err
    assert not (tmp_path / "q").exists()
