"""`tusi world show|save OUT.png`: samples of the procedural world, many on a sheet or one as a picture to ask about."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal, cast, get_args

import typer
from PIL import Image

from tusi.core.errors import ConfigError
from tusi.tasks.world import DIFFICULTIES, FAMILIES, LANGUAGES, SPLITS, WorldSample, generate, kinds
from tusi.tasks.world.sample import Clip, Language
from tusi.tasks.world.sheet import contact_sheet
from tusi.tasks.world.splits import Split

Action = Literal["show", "save"]


def world(
    action: Annotated[str, typer.Argument(help="show: many samples on a sheet. save: the picture of one.")],
    out: Annotated[Path, typer.Argument(help="The PNG or JPEG file to write.")],
    family: Annotated[str | None, typer.Option(help=f"One of {', '.join(FAMILIES)}; all, if not given.")] = None,
    kind: Annotated[str | None, typer.Option(help="One question kind of the family; in turn, if not given.")] = None,
    difficulty: Annotated[int | None, typer.Option(help="1 to 5; in turn, if not given.")] = None,
    language: Annotated[str, typer.Option(help=f"One of {', '.join(LANGUAGES)}.")] = "en",
    split: Annotated[str, typer.Option(help=f"One of {', '.join(SPLITS)}.")] = "train",
    seed: Annotated[int, typer.Option(help="Seed of the first sample; the others follow.")] = 0,
    count: Annotated[int, typer.Option(min=1, max=400, help="How many samples show draws.")] = 24,
    font: Annotated[
        Path | None,
        typer.Option(help="A font with Chinese, if the system has none; only the sheet's captions need it."),
    ] = None,
) -> None:
    """Look at the procedural world: pictures, what tools returned, question, thoughts, calls, gold answer.

    \b
    Examples:
      tusi world show sheet.png --family zoom --difficulty 3
      tusi world save wall.png --family zoom --kind number --split eval --seed 5
    """
    if action not in get_args(Action):
        raise ConfigError(f"tusi world has no action {action!r}; there are: show, save. Run `tusi world show OUT.png`.")
    if kind is not None and family is None:
        raise ConfigError(f"--kind {kind} was given without --family; name the family that the kind belongs to.")
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ConfigError(f"cannot tell a picture format from {out.name!r}; end the name in .png or .jpg.")
    names = (cast("Language", language), cast("Split", split))
    if action == "save":
        _save(_sample(seed, 0, family, kind, difficulty, *names), out)
        return
    samples = [_sample(seed + index, index, family, kind, difficulty, *names) for index in range(count)]
    contact_sheet(samples, font=font).save(out)
    print(f"{out}: {count} samples")


def _save(sample: WorldSample, out: Path) -> None:
    (pixels,) = sample.media
    if isinstance(pixels, Clip):
        raise ConfigError(f"{sample.id} is a clip, and only pictures can be saved; choose a --family other than video.")
    Image.fromarray(pixels).save(out)
    print(f"{out}: {sample.id}")
    print(f"right answer: {sample.answer}")
    print(f"ask it: tusi ask {shlex.quote(str(out))} {shlex.quote(sample.question)}")


def _sample(
    seed: int,
    index: int,
    family: str | None,
    kind: str | None,
    difficulty: int | None,
    language: Language,
    split: Split,
) -> WorldSample:
    """Sample `index` of a sheet: what was not asked for changes from one to the next."""
    chosen = family or FAMILIES[index % len(FAMILIES)]
    turn = index // (1 if family else len(FAMILIES))
    level = difficulty if difficulty is not None else DIFFICULTIES[turn % len(DIFFICULTIES)]
    if kind is None and level in DIFFICULTIES:
        available = kinds(chosen, level)
        kind = available[turn // (1 if difficulty is not None else len(DIFFICULTIES)) % len(available)]
    return generate(chosen, level, language, seed, split, kind=kind)
