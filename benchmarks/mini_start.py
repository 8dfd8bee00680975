"""How long tusi-mini takes to load, and `tusi ask` from a shell to its end, on each picture of examples/.

    python benchmarks/mini_start.py [--repeat 5] [--model tusi-mini] [--json FILE]

Medians of wall-clock seconds; run it while nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from tusi.backends.local.backend import LocalBackend
from tusi.models.embedded import EMBEDDED_MODEL

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def median_seconds(work: Callable[[], object], repeat: int) -> float:
    """Of so many runs, after one that warms the page cache."""
    work()
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def ask(entry: dict[str, str], model: str) -> None:
    program = str(Path(sysconfig.get_path("scripts")) / "tusi")
    command = [program, "ask", "--model", model, str(EXAMPLES / entry["picture"]), entry["question"]]
    subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = {"load": median_seconds(lambda: LocalBackend.load(options.model).close(), options.repeat)}
    for entry in json.loads((EXAMPLES / "questions.json").read_text(encoding="utf-8")):
        figures[f"ask {entry['name']}"] = median_seconds(lambda entry=entry: ask(entry, options.model), options.repeat)
    for name, seconds in figures.items():
        print(f"{name:20} {seconds:.3f} s")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
