"""What the server's benchmarks share: a model, `tusi serve` as a process, and clients that cost next to nothing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tusi.models.random_checkpoint import tiny_config, write_random_checkpoint
from tusi.models.shapes import SMALL_TEXT

SERVED_TEXT = replace(SMALL_TEXT, mlp_layer_types=("dense", *SMALL_TEXT.mlp_layer_types[1:]))
"""The small shape with a dense first layer, as the published models have one."""


def model_path(name: str, folder: Path) -> str:
    """A model to serve: `small` is written into the folder, everything else is a name or path as it stands."""
    if name != "small":
        return name
    return str(write_random_checkpoint(folder / "small", config=tiny_config(text=SERVED_TEXT)))


@dataclass(frozen=True)
class Server:
    """A `tusi serve` that runs."""

    host: str
    port: int
    process: subprocess.Popen[str]


@contextmanager
def serving(model: str, *options: str, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """Start `tusi serve MODEL` on a free port; stopped with SIGTERM at the end, and it must then exit with 0."""
    command = [sys.executable, "-c", "import sys; from tusi.cli.main import main; sys.exit(main())", "serve", model]
    process = subprocess.Popen(
        [*command, "--port", "0", *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("serving "):
                break
        else:
            raise SystemExit(f"the server did not start:\n{''.join(lines)}")
        port = int(line.split()[-1].rpartition(":")[2].partition("/")[0])
        _discard(process)
        yield Server("127.0.0.1", port, process)
    finally:
        process.terminate()
        try:
            code = process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        if code:
            raise SystemExit(f"the server exited with {code}")


def _discard(process: subprocess.Popen[str]) -> None:
    """Read the server's log lines, so that it never waits for somebody to."""

    def read() -> None:
        assert process.stderr is not None
        for _ in process.stderr:
            pass

    threading.Thread(target=read, daemon=True).start()


@dataclass
class Reply:
    """What came back. ended: the stream's own end was seen. left: we did not wait for it. body: its last bytes."""

    status: int
    num_events: int
    ended: bool
    body: bytes = b""
    left: bool = False


async def post_stream(
    host: str, port: int, path: str, body: dict[str, object], *, leave_after: int | None = None
) -> Reply:
    """Ask for a stream and count its events without reading them; leave after so many of them (0: at once)."""
    reader, writer = await asyncio.open_connection(host, port, limit=2**20)
    try:
        payload = json.dumps(body).encode()
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(payload)}\r\n\r\n".encode()
            + payload
        )
        if leave_after == 0:
            await writer.drain()
            return Reply(0, 0, ended=False, left=True)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        num_events, tail, ended = 0, b"", False
        while chunk := await reader.read(65536):
            num_events += chunk.count(b"data: ")
            tail = (tail + chunk)[-2000:]
            ended = ended or b"data: [DONE]" in tail
            if leave_after is not None and num_events >= leave_after and status == 200:
                return Reply(status, num_events, ended, tail, left=True)
        return Reply(status, num_events, ended, tail)
    finally:
        writer.close()


async def get(host: str, port: int, path: str) -> str:
    """Body of a GET."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2].decode()
