"""`tusi doctor`: prints what `diagnosis` found."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from tusi.cli.console import stdout_console
from tusi.cli.diagnosis import Finding, diagnose
from tusi.core.types import WeightFormatChoice

MARKS = {"ok": " ", "note": "!", "broken": "X"}
STYLES = {"ok": "", "note": "yellow", "broken": "bold red"}


def doctor(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Load this model and tell its memory; tusi-mini, if it is there."),
    ] = None,
    dtype: Annotated[WeightFormatChoice, typer.Option(help="How the model's weights lie in memory.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check this installation and machine; exit 1 if something is broken.

    Processor, memory, kernels and their measured bandwidth, disk, packages, environment variables with where each value
    came from, and what a model takes: its start, its steady and its peak memory. ! marks what could be better, X what
    must be mended.
    """
    findings = diagnose()
    if not any(finding.level == "broken" for finding in findings):
        findings += _model_findings(model, dtype)
    broken = [finding for finding in findings if finding.level == "broken"]
    if as_json:
        print(json.dumps({"ok": not broken, "findings": [dataclasses.asdict(f) for f in findings]}, indent=2))
    else:
        _print(findings, len(broken))
    if broken:
        raise typer.Exit(1)


def _model_findings(model: str | None, dtype: WeightFormatChoice) -> list[Finding]:
    # Imported here: with a broken installation these could not be, and what is broken has been found by now.
    from tusi.cli.diagnosis_model import diagnose_model
    from tusi.models.embedded import EMBEDDED_MODEL, is_embedded_there

    if model is None and is_embedded_there():
        model = EMBEDDED_MODEL
    return [] if model is None else list(diagnose_model(model, dtype))


def _print(findings: list[Finding], num_broken: int) -> None:
    out = stdout_console()
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            out.print(f"\n{section}" if finding is not findings[0] else section, style="bold")
        line = f"{MARKS[finding.level]} {finding.name:<18} {finding.value}"
        out.print(line, style=STYLES[finding.level], soft_wrap=True)
        if finding.advice:
            out.print(f"{'':<21}-> {finding.advice}", style=STYLES[finding.level], soft_wrap=True)
    out.print(f"\n{num_broken} things are broken." if num_broken else "\nNothing is broken.")
