"""Make a trained checkpoint the tusi-mini that the package ships, measure it, and write down what came out.

    python recipes/tusi-mini/release.py runs/tusi-mini/3-sft/checkpoint      # or: make release-mini CHECKPOINT=...

In turn: the files go into the package; the examples that the model answers right are chosen and their stories drawn;
the commands of docs/tusi-mini.md are run; their results go to docs/tusi-mini.json and from there into the tables of
docs/tusi-mini.md and the READMEs; scores for `tusi verify` are recorded; all of it is committed.

What was measured is kept in runs/release-mini/, by the checksum of the weights. After a break run the same command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import card
import examples

from tusi.models.embedded import EMBEDDED_MODEL, FOLDER, MAX_BYTES
from tusi.models.manifest import MANIFEST_FILE, check_files, read_manifest
from tusi.tasks.world.generate import WORLD_VERSION

ROOT = Path(__file__).resolve().parents[2]
BASE = Path(__file__).resolve().parent / "base"
WEIGHTS = "model.safetensors"
CHANGED = (FOLDER, ROOT / "docs", ROOT / "examples", ROOT / "README.md", ROOT / "README.zh.md")


@dataclass(frozen=True, slots=True)
class Piece:
    """A measurement. prepare: a command to run before it, once."""

    name: str
    command: Sequence[str]
    prepare: Sequence[str] = ()

    @property
    def shown(self) -> list[str]:
        """The commands as anyone may run them."""
        return [shlex.join(["tusi", *command]) for command in (self.prepare, self.command) if command]


def pieces(samples: int, drift_samples: int) -> list[Piece]:
    """Everything that is measured, the most important first."""

    def evaluation(*more: str) -> list[str]:
        return ["eval", "world", "--samples", str(samples), *more]

    found = [
        Piece("eval", evaluation()),
        Piece("no_tools", evaluation("--families", "zoom,tool_use", "--no-tools")),
        Piece("heldout_style", evaluation("--split", "heldout_style")),
        Piece("heldout_concepts", evaluation("--split", "heldout_concepts")),
    ]
    for bits in (8, 4):
        copy = f"{EMBEDDED_MODEL}-int{bits}"
        quantize = ["quantize", EMBEDDED_MODEL, copy, "--format", f"wint{bits}"]
        drift = ["drift", EMBEDDED_MODEL, copy, "--samples", str(drift_samples)]
        found += [
            Piece(f"drift_int{bits}", drift, quantize),
            Piece(f"int{bits}", evaluation("--model", copy), quantize),
        ]
    return found


def main() -> None:
    """Run the whole release, or what is left of it."""
    options = _options()
    if not FOLDER.is_relative_to(ROOT):
        sys.exit(f"the package in use lies in {FOLDER}; set PYTHONPATH={ROOT / 'src'}, or install {ROOT} with -e")
    digest = place(options.checkpoint) if options.checkpoint else _digest(FOLDER / WEIGHTS)
    runs = ROOT / "runs" / "release-mini" / digest[:12]
    runs.mkdir(parents=True, exist_ok=True)
    _timed("files", lambda: tusi(["verify", "--files-only"]))
    _timed("examples", lambda: examples.choose(runs / "examples.json"))
    wanted = pieces(options.samples, options.drift_samples)
    scores: dict[str, Any] = {
        "weights_sha256": digest,
        "world_version": WORLD_VERSION,
        "commands": {piece.name: piece.shown for piece in wanted},
        "reports": measure_all(wanted, runs, options.jobs),
    }
    card.SCORES.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
    entries = json.loads(card.QUESTIONS.read_text(encoding="utf-8"))
    for path, page in card.pages(scores, entries).items():
        path.write_text(page, encoding="utf-8")
    if read_manifest(FOLDER).scores is None:
        _timed("scores for tusi verify", lambda: tusi(["verify", "--record"]))
    _check_size(FOLDER)
    if options.commit:
        commit()


def place(checkpoint: Path) -> str:
    """Put a checkpoint's files into the package, unless they are there; returns the checksum of its weights."""
    names = [*sorted(path.name for path in BASE.iterdir()), WEIGHTS]
    missing = [name for name in names if not (checkpoint / name).is_file()]
    if missing:
        sys.exit(f"{checkpoint} lacks {', '.join(missing)}; give the folder that a training run's last stage wrote")
    _check_size(checkpoint)
    digest = _digest(checkpoint / WEIGHTS)
    if _is_there(digest):
        return digest
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for name in names:
        shutil.copyfile(checkpoint / name, FOLDER / name)
    tusi(["verify", "--record", "--files-only"])
    return digest


def _is_there(digest: str) -> bool:
    if not (FOLDER / MANIFEST_FILE).is_file():
        return False
    manifest = read_manifest(FOLDER)
    return not check_files(FOLDER, manifest) and manifest.files[WEIGHTS].sha256 == digest


def measure_all(wanted: Sequence[Piece], runs: Path, jobs: int) -> dict[str, Any]:
    """Every piece's report. Several run at a time, each on one thread: more would share too little work."""
    for piece in wanted:
        if piece.prepare:
            _once(piece.prepare, runs)
    with ThreadPoolExecutor(jobs) as pool:
        reports = pool.map(lambda piece: _timed(piece.name, partial(measure, piece, runs)), wanted)
        return {piece.name: report for piece, report in zip(wanted, reports, strict=True)}


def measure(piece: Piece, runs: Path) -> Any:
    """The piece's report, made now or found from before."""
    kept = runs / f"{piece.name}.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    more = ["--out", f"{piece.name}.jsonl"] if piece.command[0] == "eval" else []
    report = json.loads(tusi([*piece.command, *more, "--json"], folder=runs))
    kept.write_text(json.dumps(report), encoding="utf-8")
    return report


def _once(command: Sequence[str], runs: Path) -> None:
    """Run a command that refuses to be run again, unless it was run to its end before."""
    mark = runs / f"{'-'.join(command[:3])}.done"
    if not mark.exists():
        tusi(command, folder=runs)
        mark.touch()


def tusi(arguments: Sequence[str], folder: Path = ROOT) -> str:
    """What a command printed; the whole program ends if it fails. Its progress stays visible."""
    program = Path(sysconfig.get_path("scripts")) / "tusi"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TUSI_")}
    environment["TUSI_NUM_THREADS"] = "1"
    done = subprocess.run([str(program), *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(['tusi', *arguments])} failed:\n{done.stdout}")
    return done.stdout


def commit() -> None:
    """One commit of everything that is true of these weights and no others."""
    subprocess.run(["git", "add", "--", *CHANGED], cwd=ROOT, check=True)
    message = "Ship tusi-mini: its weights, what they score, and pictures of what they do"
    subprocess.run(["git", "commit", "--quiet", "--message", message], cwd=ROOT, check=True)
    subprocess.run(["git", "log", "--oneline", "-1"], cwd=ROOT, check=True)


def _check_size(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    if size > MAX_BYTES:
        sys.exit(f"{folder} takes {size} bytes, and the shipped model may take {MAX_BYTES}; save it in bfloat16")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _timed(name: str, work: Callable[[], Any]) -> Any:
    begin = time.monotonic()
    print(f"{name} ...", file=sys.stderr, flush=True)
    result = work()
    print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="?", help="what to ship; without it, what is in the package")
    parser.add_argument("--samples", type=int, default=300, help="samples a family of each evaluation")
    parser.add_argument("--drift-samples", type=int, default=40, help="samples a family of each comparison")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="measurements at a time")
    parser.add_argument("--no-commit", dest="commit", action="store_false", help="leave the changes uncommitted")
    return parser.parse_args()


if __name__ == "__main__":
    main()
