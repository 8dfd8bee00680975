from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys

import pytest

from tests.cli.conftest import Run
from tusi.cli.main import COMMANDS
from tusi.core.errors import BackendUnavailable, ConfigError, DownloadError, TusiError


def test_help_lists_every_command_and_loads_none_of_what_is_slow() -> None:
    script = (
        "import sys; from tusi.cli.main import main; code = main(['--help'])\n"
        "heavy = {'numpy', 'av', 'torch', 'rich', 'httpx', 'PIL', 'tokenizers', 'huggingface_hub', 'safetensors'}\n"
        "sys.exit(code or ','.join(heavy & {m.split('.')[0] for m in sys.modules}) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, sentence in COMMANDS.items():
        assert f"{name} " in done.stdout
        assert sentence.split(" ")[0] in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(name: str, run: Run) -> None:
    function = getattr(importlib.import_module(f"tusi.cli.{name}"), name)
    first_sentence = (inspect.getdoc(function) or "").partition("\n\n")[0]
    code, out, _ = run(name, "--help")
    assert code == 0
    assert first_sentence
    assert " ".join(first_sentence.split()) in " ".join(out.split())


def test_no_arguments_show_the_help(run: Run) -> None:
    code, out, err = run()
    assert code == 2
    assert "Commands:" in out + err


def test_version(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("tusi ")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("aks", "x"), "there is no command 'aks'. Did you mean `tusi ask`?"),
        (("zzzzzz",), "there is no command 'zzzzzz'. Commands: ask, chat, serve, "),
        (("--bogus",), "No such option: --bogus"),
        (("ask", "--bogus", "x"), "No such option: --bogus"),
        (("ask", "x", "--dtype", "int3"), "'int3' is not one of 'auto', 'fp32', 'bf16', 'int8', 'int4'"),
        (("ask", "x", "--max-tokens", "0"), "Invalid value for '--max-tokens'"),
        (("ask",), "Missing argument"),
    ],
)
def test_wrong_usage_is_exit_code_2(run: Run, args: tuple[str, ...], message: str) -> None:
    code, out, err = run(*args)
    assert code == 2
    assert not out
    assert message in err


@pytest.mark.parametrize("error", [ConfigError("a, b, c"), DownloadError("a, b, c"), BackendUnavailable("a, b, c")])
@pytest.mark.parametrize("verbose", [False, True])
def test_errors_are_a_message_and_an_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: TusiError, verbose: bool
) -> None:
    def broken(as_json: bool = False) -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("tusi.cli.doctor"), "doctor", broken)
    code, out, err = run(*(["--verbose"] if verbose else []), "doctor")
    assert code == error.exit_code
    assert not out
    assert "tusi: a, b, c" in err
    assert ("Traceback" in err) == verbose


def test_ctrl_c_is_exit_code_130_without_a_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(as_json: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("tusi.cli.doctor"), "doctor", stopped)
    code, _, err = run("doctor")
    assert code == 130
    assert not err


def test_ctrl_c_while_the_program_starts_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_app: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.main.get_command", stopped)
    code, _, err = run("doctor")
    assert (code, err) == (130, "")


def test_a_reader_that_leaves_is_met_in_silence() -> None:
    script = (
        "import sys, importlib; doctor = importlib.import_module('tusi.cli.doctor')\n"
        "doctor.doctor = lambda: [print('x' * 1000) for _ in range(1000)] and None\n"
        "from tusi.cli.main import main; sys.exit(main(['doctor']))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(timeout=30)


def test_a_reader_that_leaves_before_a_short_answer_too() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as out:
        script = "import sys; from tusi.cli.main import main; sys.exit(main(['--version']))"
        done = subprocess.run([sys.executable, "-c", script], stdout=out, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b""
