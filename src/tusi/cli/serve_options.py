"""Options of `tusi serve`, and those of other servers: honoured, true in any case, or refused with the remedy."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from tusi.agent.toolbox import NONE, TOOL_NAMES
from tusi.cli.session import DType
from tusi.cli.weight_formats import QUANTIZED
from tusi.core.env import TUSI_API_KEY

# Asked for by the command lines of other servers, and so here in any case: accepted, with a word about it.
_ALWAYS_SO = {
    "enable_auto_tool_choice": "--enable-auto-tool-choice is not needed: tools are offered whenever a request has them",
    "enable_prefix_caching": "--enable-prefix-caching is not needed: what prompts have in common is always kept",
    "enable_chunked_prefill": "--enable-chunked-prefill is not needed: long prompts are always read in pieces",
    "trust_remote_code": "--trust-remote-code is not needed: code of a checkpoint is never run, and none is wanted",
}
_REFUSED = {
    "gpu_memory_utilization": "The model runs on the CPU here. Use --dtype and --max-model-len to save memory.",
    "tensor_parallel_size": "The model runs in one process here. Leave this option out.",
}
# What other servers call the one parser that the model's own tags need.
_PARSERS = ("ernie-45-vl-thinking", "ernie45", "ernie-45-vl", "ernie_45_vl_thinking", "ernie45_vl")
_DTYPES: Mapping[str, DType] = {
    **{name: name for name in get_args(DType)},
    "bfloat16": "bf16",
    "float32": "fp32",
    "float": "fp32",
}


def _refuse(param: typer.CallbackParam, value: object) -> object:
    if value:
        raise typer.BadParameter(_REFUSED[str(param.name)])
    return value


def _remark(param: typer.CallbackParam, value: bool) -> bool:
    if value:
        print(_ALWAYS_SO[str(param.name)], file=sys.stderr)
    return value


def _check_parser(value: str | None) -> str | None:
    if value is not None and value not in _PARSERS:
        raise typer.BadParameter(
            f"{value!r} is no parser of this model's output. Leave this option out: the parser is chosen from the "
            "model."
        )
    return value


def _dtype(value: str) -> DType:
    """--dtype by our names, or by those of other servers. Raises typer.BadParameter."""
    if value in ("float16", "half"):
        raise typer.BadParameter(f"{value} is not computed with here. Use bf16, which takes as much room.")
    chosen = _DTYPES.get(value)
    if chosen is None:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(get_args(DType))}.")
    return chosen


def choose_dtype(dtype: DType, quantization: str | None) -> DType:
    """What --dtype and --quantization, its name elsewhere, ask for together. Raises typer.BadParameter."""
    if quantization is None:
        return dtype
    wanted = QUANTIZED.get(quantization)
    if wanted is None or dtype not in ("auto", "bf16", wanted):
        problem = (
            f"{quantization!r} is not known" if wanted is None else f"it asks for {wanted}, and --dtype for {dtype}"
        )
        raise typer.BadParameter(
            f"{problem}. Use wint8 or wint4, or --dtype alone (int8, int4).", param_hint="--quantization"
        )
    return wanted


Model = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="Folder, pulled model, or 'random' (noise); TUSI_MODEL or tusi-mini if none."),
]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets the network in: set --api-key then.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
ApiKey = Annotated[
    list[str] | None,
    typer.Option(help="What clients must send as their API key; repeatable. TUSI_API_KEY shows it to fewer eyes."),
]
Names = Annotated[
    list[str] | None, typer.Option("--served-model-name", help="Name in requests instead of MODEL; repeatable.")
]
Dtype = Annotated[
    DType,
    typer.Option(
        parser=_dtype,
        metavar="[" + "|".join(get_args(DType)) + "]",
        help="How the weights lie in memory; smaller is faster and coarser. auto: as stored if quantized, else bf16.",
    ),
]
MaxNumSeqs = Annotated[int, typer.Option(min=1, help="Requests that are computed at once.")]
MaxBatchedTokens = Annotated[int, typer.Option("--max-num-batched-tokens", min=1, help="Tokens of one step.")]
MaxRequests = Annotated[
    int, typer.Option(min=1, help="Requests in the house, running and waiting; the next gets a 429.")
]
Replicas = Annotated[
    int | None,
    typer.Option(
        "--replicas",
        "--data-parallel-size",
        min=1,
        help="Processes behind the port, each with the model in memory; one that dies is started again. "
        "Without it, the model runs in the server's own process.",
    ),
]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option(
        "--allowed-host",
        metavar="NAME",
        help="Name by which requests may call a server that listens to this machine alone, beside localhost; "
        "repeatable. Others are refused, so that no web page gets in by a name of its own.",
    ),
]
MMKwargs = Annotated[
    str | None,
    typer.Option("--mm-processor-kwargs", metavar="JSON", help='Such as {"fps": 1, "image_max_pixels": 1000000}.'),
]
MMLimit = Annotated[
    str | None,
    typer.Option("--limit-mm-per-prompt", metavar="JSON", help='Such as {"image": 8, "video": 1}.'),
]
LocalMedia = Annotated[
    Path | None,
    typer.Option("--allowed-local-media-path", metavar="DIR", help="Let requests name files in here; none otherwise."),
]
Domains = Annotated[
    list[str] | None,
    typer.Option("--allowed-media-domains", metavar="HOST", help="Fetch media from here alone; repeatable."),
]
DEFAULT_TOOLS = "zoom,calculator"
ServedTools = Annotated[
    str,
    typer.Option(
        "--tools",
        metavar="NAMES",
        help=f"Tools that run here when a request asks for them: some of {','.join(TOOL_NAMES)}, or {NONE}.",
    ),
]
StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        help="Where stored responses, files and batches are kept; without it they are gone when the server ends.",
    ),
]
MaxTurns = Annotated[int, typer.Option(min=1, help="Answers of the model in one run with tools, the last included.")]
MaxToolCalls = Annotated[int, typer.Option(min=0, help="Tool calls in one run.")]
ReasoningParser = Annotated[str | None, typer.Option(hidden=True, callback=_check_parser)]
ToolCallParser = Annotated[str | None, typer.Option(hidden=True, callback=_check_parser)]
AutoToolChoice = Annotated[bool, typer.Option("--enable-auto-tool-choice", hidden=True, callback=_remark)]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", hidden=True, callback=_remark)]
Quantization = Annotated[
    str | None, typer.Option(metavar="wint8|wint4", help="As --dtype int8 or int4, by the name that FastDeploy uses.")
]
PrefixCaching = Annotated[bool, typer.Option("--enable-prefix-caching", hidden=True, callback=_remark)]
ChunkedPrefill = Annotated[bool, typer.Option("--enable-chunked-prefill", hidden=True, callback=_remark)]
GpuMemory = Annotated[str | None, typer.Option("--gpu-memory-utilization", hidden=True, callback=_refuse)]
TensorParallel = Annotated[str | None, typer.Option("--tensor-parallel-size", hidden=True, callback=_refuse)]


def api_keys(flags: list[str] | None) -> tuple[str, ...]:
    """The keys given by flag, else the one in the environment."""
    key = TUSI_API_KEY.get()
    return tuple(flags) if flags else (() if key is None else (key,))


def is_loopback(host: str) -> bool:
    """Whether an address to listen on lets in this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def hosts(host: str, keys: tuple[str, ...], allowed: list[str] | None) -> tuple[str, ...] | None:
    """Names by which requests must call the server; None: any. A key keeps web pages out as well."""
    if allowed is None and (keys or not is_loopback(host)):
        return None
    return tuple(name.lower() for name in allowed or ())


def json_object(text: str | None, option: str) -> Mapping[str, Any]:
    """The JSON object in an option's value. Raises typer.BadParameter."""
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not JSON ({error}). Quote it for the shell.", param_hint=option
        ) from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f'{text!r} is not a JSON object. Write {{"name": value}}.', param_hint=option)
    return value
