"""`tusi fit MODEL`: does it fit, at which precision, context and picture size; from the configuration alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from tusi.cli import options
from tusi.cli.console import parse_size, size_text, stdout_console
from tusi.core.errors import CheckpointError, ConfigError
from tusi.core.kv_dtype import choose_kv_cache_dtype
from tusi.core.machine import memory
from tusi.models.config import Ernie4_5_VLMoeConfig
from tusi.models.config_io import load_config, parse_config
from tusi.models.embedded import EMBEDDED_MODEL, embedded_folder
from tusi.models.fit import FitReport, find_change, least_bytes
from tusi.models.fit import fit as fit_model
from tusi.models.hub import DEFAULT_REVISION, cache_folder, fetch_config, is_pulled, model_folder
from tusi.models.known import known_config
from tusi.models.memory_estimate import MemoryEstimate, checkpoint_bytes, count_parameters, kv_cache_bytes_per_token
from tusi.processing.config import PixelConfig, ProcessorConfig
from tusi.processing.options import image_options
from tusi.processing.resize import smart_resize

VERDICTS = {"fits": "fits", "tight": "tight", "no": "no"}
# Shown in one line: together under a tenth of a percent.
SMALL_COMPONENTS = ("norms", "text routers", "vision routers", "correction biases")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Picture:
    """The asked picture, and what the processor makes of it."""

    width: int
    height: int
    resized_width: int
    resized_height: int
    num_patches: int
    num_tokens: int


def fit(
    model: Annotated[
        str, typer.Argument(help="Folder, config.json, or ORGANISATION/NAME on the Hub (fetches only its config.json).")
    ],
    context: Annotated[
        int, typer.Option(min=1, help="Tokens of question, pictures, thoughts and answer together.")
    ] = 32768,
    kv_cache_dtype: options.KVCacheDtype = "auto",
    image: Annotated[str, typer.Option(help="Size of the largest picture: WIDTHxHEIGHT.")] = "1920x1080",
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Cap on a picture's pixels; the model's own, if not given.")
    ] = None,
    memory_size: Annotated[
        str | None,
        typer.Option("--memory", help="Compare with this much memory (24GB, 32GiB); what is free here, if not given."),
    ] = None,
    revision: Annotated[str, typer.Option(help="Branch, tag or commit on the Hub.")] = DEFAULT_REVISION,
    endpoint: Annotated[str | None, typer.Option(help="Hub or mirror; HF_ENDPOINT, if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell before any download whether a model fits this machine, and how.

    Counts weights at each precision, the cache for the asked context, and the work memory of the asked picture. Exit
    code 1 if nothing fits as asked.
    """
    config, pixels = _find_config(model, revision, endpoint)
    _require_context(config, context)
    picture = _picture(image, pixels, max_pixels)
    budget = _budget(memory_size)
    report = fit_model(
        config,
        budget=budget,
        context=context,
        num_patches=picture.num_patches,
        kv_cache_dtype=choose_kv_cache_dtype(kv_cache_dtype),
    )
    if as_json:
        print(json.dumps(_as_json(model, config, picture, report), indent=2))
    else:
        _print(model, config, picture, report, given=memory_size is not None)
    if report.best is None:
        raise typer.Exit(1)


def _find_config(model: str, revision: str, endpoint: str | None) -> tuple[Ernie4_5_VLMoeConfig, PixelConfig]:
    """From a folder or file, an earlier pull, what is built in, or the Hub; in this order."""
    local = Path(model).expanduser()
    if local.is_file():
        beside = ProcessorConfig.from_pretrained(local.parent).image if local.name == "config.json" else PixelConfig()
        return parse_config(_read_json(local), source=str(local)), beside
    if model == EMBEDDED_MODEL:
        local = embedded_folder()
    elif not local.is_dir() and is_pulled(model, revision):
        local = model_folder(model, revision)
    if local.is_dir():
        return load_config(local), ProcessorConfig.from_pretrained(local).image
    known = known_config(model)
    if known is not None:
        return known, PixelConfig()
    return parse_config(fetch_config(model, revision=revision, endpoint=endpoint), source=model), PixelConfig()


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as JSON ({error}). Give a config.json, the folder that holds it, or a Hub name."
        ) from error


def _require_context(config: Ernie4_5_VLMoeConfig, context: int) -> None:
    longest = config.text_config.max_position_embeddings
    if context > longest:
        raise ConfigError(f"--context is {context}; this model reads at most {longest} tokens. Ask for fewer.")


def _picture(image: str, pixels: PixelConfig, max_pixels: int | None) -> _Picture:
    match = re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", image.strip())
    if not match:
        raise ConfigError(f"--image is {image!r}; expected WIDTHxHEIGHT in pixels, for example 1920x1080.")
    width, height = int(match[1]), int(match[2])
    limits = image_options(pixels, {"image_max_pixels": max_pixels}, {}, param="--max-pixels")
    new_height, new_width = smart_resize(
        height,
        width,
        factor=pixels.factor,
        min_pixels=limits.min_pixels,
        max_pixels=limits.max_pixels,
        param="--image",
    )
    num_patches = (new_height // pixels.patch_size) * (new_width // pixels.patch_size)
    return _Picture(
        width=width,
        height=height,
        resized_width=new_width,
        resized_height=new_height,
        num_patches=num_patches,
        num_tokens=num_patches // pixels.merge_size**2,
    )


def _budget(text: str | None) -> int:
    if text is None:
        available = memory().available
        if available is None:
            raise ConfigError("this system does not tell how much memory is free. Say it: --memory 24GB.")
        return available
    try:
        return parse_size(text)
    except ValueError as error:
        raise ConfigError(f"--memory is {text!r} ({error}); expected a size such as 24GB or 32GiB.") from error


def _print(model: str, config: Ernie4_5_VLMoeConfig, picture: _Picture, report: FitReport, *, given: bool) -> None:
    total = sum(count_parameters(config).values())
    print(f"{model}: {total / 1e9:.2f} billion parameters, {size_text(checkpoint_bytes(config))} to download")
    print(
        f"Picture {picture.width} x {picture.height}: read as {picture.resized_width} x {picture.resized_height}, "
        f"{picture.num_patches} patches, {picture.num_tokens} tokens of the context"
    )
    seen = memory().total
    here = "free on this machine" + (f" (of {size_text(seen)})" if seen else "")
    print(f"Memory: {size_text(report.budget)} {'given with --memory' if given else here}\n")
    stdout_console().print(_table(report))
    print()
    for line in [*_advice(config, picture, report), *_disk_advice(model, config)]:
        print(line)


def _table(report: FitReport) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for row in report.rows:
        table.add_column(row.weight_format, justify="right", min_width=10)

    def line(name: str, value: Callable[[MemoryEstimate], int], style: str = "") -> None:
        table.add_row(name, *(size_text(value(row.estimate)) for row in report.rows), style=style)

    for component in report.rows[0].estimate.weights:
        if component not in SMALL_COMPONENTS:
            line(f"  {component}", lambda e, key=component: e.weights[key])  # type: ignore[misc]
    line("  routers, norms", lambda e: sum(e.weights.get(key, 0) for key in SMALL_COMPONENTS))
    line("weights", lambda e: e.weights_total)
    line(f"cache for {report.context} tokens", lambda e: e.kv_cache)
    line("work memory for the picture", lambda e: e.vision_activations)
    line("work memory for the text", lambda e: e.decoder_activations)
    line("the program itself", lambda e: e.program)
    line("total", lambda e: e.total, "bold")
    table.add_row("fits?", *(VERDICTS[row.verdict] for row in report.rows), style="bold")
    table.add_row("longest context that fits", *(str(row.max_context or "-") for row in report.rows))
    return table


def _advice(config: Ernie4_5_VLMoeConfig, picture: _Picture, report: FitReport) -> list[str]:
    lines = []
    if picture.num_tokens >= report.context:
        lines.append(
            f"The picture alone takes {picture.num_tokens} tokens, the context has {report.context}: raise --context "
            "or lower --max-pixels."
        )
    if report.best is not None:
        lines.append(f"Use: --dtype {report.best.weight_format} --max-model-len {report.context}{_kv_option(report)}")
        if report.best.verdict == "tight":
            lines.append("That is tight: close other programs, or take the next column.")
    elif change := find_change(config, report):
        pixels = f" --max-pixels {change.pixels}" if change.pixels else ""
        lines.append(
            f"As asked nothing fits. This does: --dtype {change.weight_format} --max-model-len {change.context}"
            f"{_kv_option(report)}{pixels}"
        )
    else:
        lines.append(
            f"Nothing fits: even int4 with a short context and small pictures wants {size_text(least_bytes(config))}, "
            f"and there are {size_text(report.budget)}. Close other programs, or use a machine with more memory."
        )
    return lines


def _kv_option(report: FitReport) -> str:
    return "" if report.kv_cache_dtype == "bfloat16" else f" --kv-cache-dtype {report.kv_cache_dtype}"


def _disk_advice(model: str, config: Ernie4_5_VLMoeConfig) -> list[str]:
    if Path(model).expanduser().exists() or is_pulled(model):
        return []
    folder = cache_folder()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free, needed = shutil.disk_usage(existing).free, checkpoint_bytes(config)
    verdict = "enough" if free > needed else "too little: choose another disk with TUSI_CACHE or `tusi pull --dir`"
    return [f"Disk for the download: {size_text(needed)}; {size_text(free)} free at {folder}: {verdict}"]


def _as_json(model: str, config: Ernie4_5_VLMoeConfig, picture: _Picture, report: FitReport) -> dict[str, Any]:
    change = find_change(config, report)
    best = report.best
    return {
        "model": model,
        "parameters": count_parameters(config),
        "parameters_total": sum(count_parameters(config).values()),
        "checkpoint_bytes": checkpoint_bytes(config),
        "memory_bytes": report.budget,
        "context": report.context,
        "kv_cache_dtype": report.kv_cache_dtype,
        "kv_cache_bytes_per_token": kv_cache_bytes_per_token(config, report.kv_cache_dtype),
        "image": {
            "width": picture.width,
            "height": picture.height,
            "resized_width": picture.resized_width,
            "resized_height": picture.resized_height,
            "num_patches": picture.num_patches,
            "num_tokens": picture.num_tokens,
        },
        "rows": [
            {
                "dtype": row.weight_format,
                "verdict": row.verdict,
                "max_context": row.max_context,
                "weights_bytes": dict(row.estimate.weights),
                "weights_total_bytes": row.estimate.weights_total,
                "kv_cache_bytes": row.estimate.kv_cache,
                "vision_activation_bytes": row.estimate.vision_activations,
                "decoder_activation_bytes": row.estimate.decoder_activations,
                "program_bytes": row.estimate.program,
                "total_bytes": row.estimate.total,
            }
            for row in report.rows
        ],
        "best_dtype": best.weight_format if best else None,
        "change": None
        if best or change is None
        else {"dtype": change.weight_format, "max_model_len": change.context, "max_pixels": change.pixels},
    }
