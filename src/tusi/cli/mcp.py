"""`tusi mcp`: our tools for any MCP client, over standard input and output."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from tusi.agent.mcp.server import serve_stdio
from tusi.agent.toolbox import TOOL_NAMES, ToolResources, check_resources, make_tools, parse_tool_names
from tusi.agent.tools.image_search_http import HttpProvider
from tusi.cli import options
from tusi.cli.session import ModelOptions, opened_backend
from tusi.cli.tools import embedder
from tusi.core.errors import ConfigError
from tusi.processing.limits import MediaLimits

DEFAULT_TOOLS = "zoom,calculator"


def mcp(
    tools: Annotated[
        str, typer.Option(metavar="NAMES", help=f"What is offered: some of {','.join(TOOL_NAMES)}.")
    ] = DEFAULT_TOOLS,
    index: options.Index = None,
    image_search_url: options.ImageSearchUrl = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model whose vision tower made the index of pictures.")
    ] = None,
    dtype: options.Dtype = "auto",
    local_files: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The one folder whose pictures may be read; any, if not given."),
    ] = None,
    allow_private_addresses: options.AllowPrivate = False,
) -> None:
    """Serve the tools to an MCP client on standard input and output; clients start this command themselves.

    \b
    Examples (the command of a client's configuration):
      tusi mcp
      tusi mcp --tools zoom,calculator,knowledge_search --index my.index
    """
    names = parse_tool_names(tools)
    if not names:
        raise ConfigError(f"--tools {tools} leaves nothing to serve. Name some of {', '.join(TOOL_NAMES)}.")
    limits = MediaLimits(
        allow_private_addresses=allow_private_addresses,
        allowed_local_path=None if local_files is None else str(local_files),
    )
    service = None if image_search_url is None else HttpProvider(image_search_url, limits=limits)
    resources = ToolResources(limits=limits, index=index, image_search=service)
    check_resources(names, resources)
    needs_model = "image_search" in names and service is None
    if model is not None and not needs_model:
        raise ConfigError(f"--model {model} has nothing to act on: only image_search in an index needs one.")
    chosen = ModelOptions(model=model, dtype=dtype, allow_private_addresses=allow_private_addresses)
    with opened_backend(chosen) if needs_model else nullcontext() as backend:
        embed = None if backend is None else embedder(backend)
        made = ToolResources(limits=limits, index=index, image_search=service, embed=embed)
        serve_stdio(make_tools(names, made))
