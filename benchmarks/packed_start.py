"""How soon a packed model is ready, and what it takes: written with random weights, then loaded by `tusi bench`.

    python benchmarks/packed_start.py FOLDER [--shape 28b] [--format int4] [--memory mmap] [--keep] [-- OPTIONS]

FOLDER gets the packed file (17 GB for 28b in int4; deleted afterwards unless --keep) and a small tokenizer. OPTIONS go
to `tusi bench`, which prints the seconds of loading, speeds and memory.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tusi.core.types import WeightFormat
from tusi.models.config_write import config_to_dict
from tusi.models.pack import LAYOUT_VERSION, packed_path, write_packed
from tusi.models.random_tokenizer import random_tokenizer_files
from tusi.models.random_weights import RandomParameters
from tusi.models.shapes import SHAPES, named_shape


def write(folder: Path, shape: str, weight_format: WeightFormat) -> None:
    """A folder that holds packed weights alone."""
    config = named_shape(shape)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_to_dict(config, "hub")))
    for name, content in random_tokenizer_files()[0].items():
        (folder / name).write_bytes(content)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    about = {"layout": LAYOUT_VERSION, "format": weight_format, "source": None}
    begin = time.perf_counter()
    write_packed(packed_path(folder, weight_format), about, config, RandomParameters(config, weight_format))
    size = packed_path(folder, weight_format).stat().st_size
    print(f"written: {size / 1e9:.2f} GB in {time.perf_counter() - begin:.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="28b")
    parser.add_argument("--format", choices=("int4", "int8", "bf16", "fp32"), default="int4")
    parser.add_argument("--memory", choices=("anonymous", "mmap"), default="anonymous")
    parser.add_argument("--prepare", action="store_true", help="write the folder, measure nothing")
    parser.add_argument("--keep", action="store_true")
    own, _, passed_on = " ".join(sys.argv[1:]).partition(" -- ")
    options = parser.parse_args(own.split())
    if not options.folder.exists():
        write(options.folder, options.shape, options.format)
    if options.prepare:
        return
    program = [sys.executable, "-c", "import sys; from tusi.cli.main import main; sys.exit(main())"]
    bench = ["bench", str(options.folder), "--weight-memory", options.memory, *passed_on.split()]
    subprocess.run([*program, *bench], check=True)
    if not options.keep:
        shutil.rmtree(options.folder)


if __name__ == "__main__":
    main()
