"""`tusi serve MODEL`: loads a model and answers OpenAI's clients until it is told to stop."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from tusi.agent.types import AgentLimits
from tusi.cli import options, session
from tusi.cli import serve_options as own
from tusi.cli.tools import ToolChoice
from tusi.core.errors import ConfigError, RequestError
from tusi.engine.config import EngineConfig
from tusi.processing.limits import MediaLimits
from tusi.server.config import ServerConfig


def serve(
    model: own.Model = None,
    host: own.Host = "127.0.0.1",
    port: own.Port = 8000,
    api_key: own.ApiKey = None,
    served_model_name: own.Names = None,
    dtype: own.Dtype = "auto",
    kv_cache_dtype: options.KVCacheDtype = "auto",
    weight_memory: options.WeightMemory = None,
    activations: options.Activations = None,
    max_model_len: options.MaxModelLen = None,
    max_num_seqs: own.MaxNumSeqs = 16,
    max_num_batched_tokens: own.MaxBatchedTokens = 1024,
    max_requests: own.MaxRequests = 256,
    replicas: own.Replicas = None,
    allowed_host: own.AllowedHosts = None,
    mm_processor_kwargs: own.MMKwargs = None,
    limit_mm_per_prompt: own.MMLimit = None,
    allowed_local_media_path: own.LocalMedia = None,
    allowed_media_domains: own.Domains = None,
    allow_private_addresses: options.AllowPrivate = False,
    reasoning_parser: own.ReasoningParser = None,
    tool_call_parser: own.ToolCallParser = None,
    enable_auto_tool_choice: own.AutoToolChoice = False,
    tools: own.ServedTools = own.DEFAULT_TOOLS,
    index: options.Index = None,
    image_search_url: options.ImageSearchUrl = None,
    mcp: options.Mcp = None,
    max_turns: own.MaxTurns = 8,
    max_tool_calls: own.MaxToolCalls = 16,
    state_dir: own.StateDir = None,
    trust_remote_code: own.TrustRemoteCode = False,
    quantization: own.Quantization = None,
    enable_chunked_prefill: own.ChunkedPrefill = False,
    enable_prefix_caching: own.PrefixCaching = False,
    gpu_memory_utilization: own.GpuMemory = None,
    tensor_parallel_size: own.TensorParallel = None,
) -> None:
    """Answer OpenAI's clients over HTTP.

    The server speaks at http://HOST:PORT/v1. It listens to this machine alone, reads no local file and fetches nothing
    from private addresses unless told to. Ctrl-C or SIGTERM lets what runs end first.

    \b
    Examples:
      tusi serve baidu/ERNIE-4.5-VL-28B-A3B-Thinking
      tusi serve random --port 9000
      tusi serve path/to/folder --host 0.0.0.0 --api-key SECRET --dtype int8
      tusi serve path/to/folder --replicas 4
      tusi serve path/to/packed --replicas 2 --weight-memory mmap
      tusi serve path/to/folder --tools zoom,calculator,knowledge_search --index my.index
    """
    name = session.choose_model(model)
    kwargs = own.json_object(mm_processor_kwargs, "--mm-processor-kwargs")
    counts = own.json_object(limit_mm_per_prompt, "--limit-mm-per-prompt")
    limits = media_limits(counts, allowed_local_media_path, allowed_media_domains or [], allow_private_addresses)
    check_processor_kwargs(kwargs)
    model_options = session.ModelOptions(
        model=name, dtype=own.choose_dtype(dtype, quantization), kv_cache_dtype=kv_cache_dtype,
        weight_memory=weight_memory, activations=activations, max_model_len=max_model_len,
        engine_config=EngineConfig(max_num_seqs=max_num_seqs, max_num_batched_tokens=max_num_batched_tokens),
        media_limits=limits, num_replicas=replicas,
    )  # fmt: skip
    keys = own.api_keys(api_key)
    config = ServerConfig(
        served_model_names=tuple(served_model_name or ()),
        api_keys=keys,
        mm_processor_kwargs=kwargs,
        max_requests=max_requests,
        state_dir=state_dir,
        hosts=own.hosts(host, keys, allowed_host),
    )
    choice = ToolChoice.of(tools, limits, index=index, image_search_url=image_search_url, mcp=mcp)
    run_server(
        model_options, config, choice, AgentLimits(max_turns=max_turns, max_tool_calls=max_tool_calls), host, port
    )


def run_server(
    model_options: session.ModelOptions,
    config: ServerConfig,
    choice: ToolChoice,
    agent_limits: AgentLimits,
    host: str,
    port: int,
) -> None:
    """Load the model and answer until told to stop."""
    from tusi.server.app import bind, run
    from tusi.server.server_tools import ServerTools

    listener = bind(host, port)  # before the minutes that a model takes to load
    if not config.api_keys and not own.is_loopback(host):
        print(f"anybody who reaches {host} may ask this server; --api-key changes that", file=sys.stderr)
    shown_host = f"[{host}]" if ":" in host else host
    url = f"http://{shown_host}:{listener.getsockname()[1]}/v1"
    with listener, choice, session.opened_backend(model_options) as backend:
        tools = ServerTools(choice.tools(backend, (), {}), agent_limits, model_options.media_limits or MediaLimits())
        if logging.getLogger("tusi").level == logging.WARNING:
            logging.getLogger("tusi").setLevel(logging.INFO)  # one line a request: here it is wanted
        served = ", ".join(config.served_model_names or (backend.model,))

        def on_ready() -> None:
            print(f"built-in tools: {', '.join(tool.name for tool in tools.all) or 'none'}", file=sys.stderr)
            print(f"serving {served} at {url}", file=sys.stderr)

        run(backend, config, listener, on_ready=on_ready, tools=tools)


def media_limits(
    counts: Mapping[str, Any], local_path: Path | None, domains: list[str], allow_private_addresses: bool
) -> MediaLimits:
    """What strangers' requests may bring. Raises typer.BadParameter or ConfigError."""
    hint = "--limit-mm-per-prompt"
    for kind, count in counts.items():
        if kind not in ("image", "video"):
            raise typer.BadParameter(f"{kind!r} is no kind of medium here. Use image and video.", param_hint=hint)
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise typer.BadParameter(f"{kind} is {count!r}. Give a whole number, 0 or more.", param_hint=hint)
    if local_path is not None and not local_path.is_dir():
        raise ConfigError(f"--allowed-local-media-path {local_path} is not a folder. Create it, or correct the path.")
    return MediaLimits(
        **{f"max_{kind}s": count for kind, count in counts.items()},
        allow_private_addresses=allow_private_addresses,
        allowed_domains=tuple(domains),
        allow_local_files=local_path is not None,
        allowed_local_path=None if local_path is None else str(local_path),
    )


def check_processor_kwargs(kwargs: Mapping[str, Any]) -> None:
    """Raise ConfigError for a name that no request could use either."""
    from tusi.processing.options import check_request_kwargs

    try:
        check_request_kwargs(kwargs)
    except RequestError as error:
        raise ConfigError(f"--mm-processor-kwargs: {error}") from error
