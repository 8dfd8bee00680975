"""Options that several commands take, declared once: the same name, meaning and help everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tusi.agent.toolbox import NONE, TOOL_NAMES
from tusi.cli.session import DType, KVDType
from tusi.core import types

Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="Folder, pulled model, or 'random' (noise); if not given TUSI_MODEL or tusi-mini."
    ),
]
Dtype = Annotated[
    DType,
    typer.Option(
        help="How the weights lie in memory; smaller is faster and coarser. auto: as stored if quantized, else bf16."
    ),
]
KVCacheDtype = Annotated[
    KVDType,
    typer.Option(
        "--kv-cache-dtype",
        help="How keys and values of the context lie in memory. auto: bfloat16; int8 takes about half of that.",
    ),
]
WeightMemory = Annotated[
    types.WeightMemory | None,
    typer.Option(
        "--weight-memory",
        help="Where packed weights lie (`tusi pack`): anonymous (read into huge pages of our own) or mmap (the file's "
        "pages, which processes share). If not given: TUSI_WEIGHT_MEMORY, or anonymous.",
    ),
]
Activations = Annotated[
    types.Activations | None,
    typer.Option(
        "--activations",
        help="What products over int4 and int8 weights do with their input: int8 rounds it (several times as fast; the "
        "default), float32 takes it as it is.",
    ),
]
MaxModelLen = Annotated[
    int | None,
    typer.Option(min=2, help="Tokens of question, media, thoughts and answer together."),
]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Tokens of thoughts and answer; what fits, if not given.")]
Temperature = Annotated[float | None, typer.Option(min=0.0, help="0 always takes the likeliest token.")]
Seed = Annotated[int | None, typer.Option(help="Makes the draws reproducible.")]
Thinking = Annotated[
    bool | None,
    typer.Option("--thinking/--no-thinking", help="Think before answering; the model's habit, if not given."),
]
ThinkingBudget = Annotated[int | None, typer.Option(min=0, help="Tokens of thoughts after which they are closed.")]
Thoughts = Annotated[bool, typer.Option("--thoughts/--no-thoughts", help="Show the thoughts (on standard error).")]
Fps = Annotated[float | None, typer.Option(min=0.001, help="Frames taken of a second of video.")]
MaxFrames = Annotated[int | None, typer.Option(min=1, help="Frames taken of a video at most; holds beside --fps.")]
MaxPixels = Annotated[int | None, typer.Option(min=784, help="Pixels of a picture at most; fewer is faster, coarser.")]
AllowPrivate = Annotated[
    bool, typer.Option("--allow-private-addresses", help="Fetch URLs also from this machine and the local network.")
]
System = Annotated[str | None, typer.Option(help="System prompt.")]
OutputPicture = Annotated[
    Path | None,
    typer.Option(metavar="OUT.png", help="Draw the answer's boxes and points into a copy of the picture."),
]
StoryPicture = Annotated[
    Path | None,
    typer.Option(
        metavar="OUT.png", help="Draw one picture of what happened: input, boxes, crops, thoughts, calls and answer."
    ),
]
Font = Annotated[Path | None, typer.Option(metavar="FILE", help="A font for what --story must write, say Chinese.")]
Tools = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help=f"What the model may call: some of {','.join(TOOL_NAMES)}, or {NONE}. If not given: zoom, where a picture "
        "is larger than what the model sees of it at once.",
    ),
]
Index = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="What knowledge_search and image_search look up; `tusi index` makes it."),
]
ImageSearchUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="A service that image_search asks instead of the index.")
]
Mcp = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SERVER", help="Offer an MCP server's tools as well: its command in quotes, or its URL. Repeatable."
    ),
]
TraceFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE.jsonl", help="Append what happened as one line of JSON, crops included; replayable."),
]
SchemaFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="JSON schema that the answer (not the thoughts) must follow.")
]
