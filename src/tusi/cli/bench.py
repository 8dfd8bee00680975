"""`tusi bench`: shows what `tusi.bench` measures."""

from __future__ import annotations

import json
import re
import sys
from typing import Annotated

import typer
from rich.table import Table

from tusi import kernels
from tusi.bench.picture import PictureResult
from tusi.bench.run import Plan, Report, measure
from tusi.bench.samples import Samples
from tusi.bench.subject import Subject, load_subject, random_subject
from tusi.cli import options
from tusi.cli.console import size_text, stdout_console
from tusi.cli.weight_formats import AnyFormat, our_name
from tusi.core.errors import ConfigError
from tusi.core.types import Activations, WeightFormatChoice, WeightMemory
from tusi.engine.config import EngineConfig
from tusi.models.shapes import SHAPES


def bench(
    model: Annotated[str | None, typer.Argument(help="Folder or pulled model; or none, and --shape.")] = None,
    shape: Annotated[str | None, typer.Option(help=f"Random weights of this shape: {', '.join(SHAPES)}.")] = None,
    weight_format: Annotated[
        AnyFormat, typer.Option("--format", help="Weights; auto: as stored, and wint4 for a shape.")
    ] = "auto",
    kv_cache_dtype: options.KVCacheDtype = "auto",
    context: Annotated[int, typer.Option(min=64, help="Tokens of the KV cache.")] = 8192,
    prompts: Annotated[str, typer.Option(help="Prompt lengths to prefill; 'none' for none.")] = "512",
    sequences: Annotated[str, typer.Option(help="How many sequences decode together; 'none' for none.")] = "1,8,16",
    tokens: Annotated[int, typer.Option(min=1, help="Tokens that each sequence decodes a round.")] = 32,
    image: Annotated[str, typer.Option(help="Picture to read, WIDTHxHEIGHT; 'none' for none.")] = "1024x768",
    weight_memory: options.WeightMemory = None,
    activations: options.Activations = None,
    rounds: Annotated[int, typer.Option(min=1, help="Repeats of each measurement.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure prefill, decoding and pictures beside what this machine could do at most.

    MBU is the share of the memory bandwidth measured around each round, MFU that of the arithmetic peak of the units in
    use. Figures are medians; the spread stands beside them. Leave the machine alone meanwhile.

    \b
    Examples:
      tusi bench
      tusi bench --shape 28b --format wint4
      tusi bench ernie-int4 --sequences 1 --image none --json
    """
    plan = Plan(
        prompts=_numbers("--prompts", prompts),
        sequences=_numbers("--sequences", sequences),
        tokens=tokens,
        picture=_size(image),
        rounds=rounds,
    )
    engine_config = EngineConfig(
        max_model_len=context,
        max_num_seqs=max((16, *plan.sequences)),
        kv_cache_dtype=kv_cache_dtype,
        enable_prefix_caching=False,
    )
    subject = _subject(model, shape, our_name(weight_format), engine_config, weight_memory, activations)
    report = measure(subject, plan, engine_config, tell=lambda line: print(f"measuring: {line}", file=sys.stderr))
    if as_json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        _print(report)


def _subject(
    model: str | None,
    shape: str | None,
    weight_format: WeightFormatChoice,
    engine_config: EngineConfig,
    memory: WeightMemory | None,
    activations: Activations | None,
) -> Subject:
    if model is not None and shape is not None:
        raise ConfigError(f"both a model ({model}) and --shape {shape} are given; a run measures one. Leave one out.")
    if model is not None:
        return load_subject(
            model, dtype=weight_format, engine_config=engine_config, weight_memory=memory, activations=activations
        )
    if memory is not None:
        raise ConfigError(
            "--weight-memory says where packed weights lie; random ones are made in memory. Leave it out."
        )
    chosen = "int4" if weight_format == "auto" else weight_format
    return random_subject(shape or "small", weight_format=chosen, engine_config=engine_config, activations=activations)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    if text.strip().lower() == "none":
        return ()
    if not re.fullmatch(r"\s*[1-9]\d{0,5}(\s*,\s*[1-9]\d{0,5})*\s*", text):
        raise ConfigError(f"{option} is {text!r}; expected whole numbers such as 1,8,16, or none.")
    return tuple(int(number) for number in text.split(","))


def _size(text: str) -> tuple[int, int] | None:
    if text.strip().lower() == "none":
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})[xX×]([1-9]\d{0,4})", text.strip())
    if not match:
        raise ConfigError(f"--image is {text!r}; expected WIDTHxHEIGHT in pixels, for example 1024x768, or none.")
    return int(match[1]), int(match[2])


def _print(report: Report) -> None:
    print(
        f"{report.subject}, {report.weight_format}: weights {size_text(report.weight_bytes)}, cache of "
        f"{report.context} tokens {size_text(report.kv_cache_bytes)}; ready after {report.load_seconds:.1f} s"
    )
    peaks = ", ".join(f"{unit} {rates.high:.0f}" for unit, rates in report.peaks.by_unit.items())
    print(f"{kernels.isa()}, {kernels.num_threads()} threads; peaks in GMAC/s: {peaks}\n")
    if report.text:
        stdout_console().print(_text_table(report))
    if report.picture is not None:
        stdout_console().print(_picture_table(report.picture))
    if report.peak_bytes is not None and report.steady_bytes is not None:
        print(
            f"\nmemory: {size_text(report.peak_bytes)} at most (the whole cache counted as used), "
            f"{size_text(report.steady_bytes)} now"
        )


def _text_table(report: Report) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("", "tok/s", "spread", "MBU", "MFU", "GB/s beside", "experts"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for result in report.text:
        table.add_row(
            result.name,
            _rate(result.rate.median),
            f"{_rate(result.rate.low)}-{_rate(result.rate.high)}",
            _percent(result.mbu),
            _percent(result.mfu),
            f"{result.bandwidth.median:.1f} ({result.bandwidth.low:.0f}-{result.bandwidth.high:.0f})",
            "" if result.experts_per_layer is None else f"{result.experts_per_layer:.1f}",
        )
    return table


def _picture_table(picture: PictureResult) -> Table:
    title = f"{picture.width} x {picture.height}: {picture.patches} patches, {picture.tokens} tokens of prompt"
    table = Table(box=None, pad_edge=False, title=f"\n{title}", title_justify="left", title_style="")
    for name in ("", "seconds", "spread", "MFU"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    shares = {"vision tower": picture.vision_mfu, "prefill": picture.prefill_mfu}
    for name, part in (("time to first token", picture.seconds), *((f"  {n}", p) for n, p in picture.parts.items())):
        share = _percent(shares.get(name.strip()))
        table.add_row(name, f"{part.median:.3f}", f"{part.low:.3f}-{part.high:.3f}", share)
    return table


def _percent(share: Samples | None) -> str:
    return "" if share is None else f"{share.median:.0%}"


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
