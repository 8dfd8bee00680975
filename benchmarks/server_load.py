"""Many streaming clients, many of whom leave: is anything lost, leaked, or answered with an error?

    python benchmarks/server_load.py [--seconds 300] [--clients 64] [--model random] [--replicas N] [--json FILE]

Each client asks again and again for a stream of random length, with or without a picture, and often leaves: before the
first event, or after some. The server takes fewer requests than there are clients, so that some get a 429. Every ten
seconds the memory of the server's processes is read. At the end it must owe nothing: no request in the house, none in
an engine, no block of the KV cache held. Exits with 1 unless all errors were 429, nothing is held, and memory in the
last quarter of the time (median) is within 5 % or 16 MiB of the second quarter's (judged from two minutes on).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import random
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

from engine_memory import machine
from PIL import Image
from serving import Server, get, post_stream, serving

JUDGED_SECONDS = 120
GROWTH = 0.05
GROWTH_MIB = 16.0


def picture(seed: int) -> str:
    """A small PNG as data URL, one of a few, so that the prefix cache has something to find."""
    file = io.BytesIO()
    Image.effect_noise((56 + 28 * (seed % 3), 56), 40 + seed).convert("RGB").save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def question(rng: random.Random, pictures: list[str]) -> dict[str, Any]:
    """A body for /v1/chat/completions."""
    content: list[dict[str, Any]] = [{"type": "text", "text": "word " * rng.randrange(1, 60)}]
    if rng.random() < 0.3:
        content.insert(0, {"type": "image_url", "image_url": {"url": rng.choice(pictures)}})
    return {
        "messages": [{"role": "user", "content": content}],
        "max_tokens": rng.choice((1, 8, 32, 64, 128)),
        "n": rng.choice((1, 1, 1, 2)),
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def client(server: Server, number: int, end: float, counts: Counter[str], pictures: list[str]) -> None:
    """Ask until the time is up."""
    rng = random.Random(number)
    while time.monotonic() < end:
        leave_after = rng.choice((None, None, 0, 1, 3, 20))
        try:
            reply = await asyncio.wait_for(
                post_stream(
                    server.host, server.port, "/v1/chat/completions", question(rng, pictures), leave_after=leave_after
                ),
                120,
            )
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            counts[f"{type(error).__name__} instead of an answer"] += 1
            continue
        if reply.left:
            counts["left"] += 1
        elif reply.status == 429:
            counts["429"] += 1
            await asyncio.sleep(rng.random() / 4)
        elif reply.status != 200:
            counts[f"status {reply.status}"] += 1
        elif b'"error"' in reply.body:
            counts["error in the stream"] += 1
        else:
            counts["whole" if reply.ended else "ended without [DONE]"] += 1


def resident_mib(pid: int) -> float:
    """Memory of a process and its children."""
    pids = {pid}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        pids |= {int(child) for child in task.read_text().split()}
    lines = (Path(f"/proc/{one}/status").read_text().splitlines() for one in pids)
    return sum(int(line.split()[1]) for status in lines for line in status if line.startswith("VmRSS:")) / 1024


async def watch(server: Server, end: float, interval: float, memory: list[float]) -> None:
    """Read the memory now and then."""
    while time.monotonic() < end:
        memory.append(resident_mib(server.process.pid))
        await asyncio.sleep(min(interval, max(0.0, end - time.monotonic())))


async def load(server: Server, arguments: argparse.Namespace) -> tuple[Counter[str], list[float]]:
    """All clients for the whole time."""
    counts: Counter[str] = Counter()
    memory: list[float] = []
    end = time.monotonic() + arguments.seconds
    pictures = [picture(seed) for seed in range(6)]
    clients = [client(server, number, end, counts, pictures) for number in range(arguments.clients)]
    await asyncio.gather(watch(server, end, arguments.seconds / 32, memory), *clients)
    return counts, memory


async def owed(server: Server) -> dict[str, float]:
    """What the server still holds a while after the last client has gone."""
    names = ("tusi_requests_in_flight", "tusi_requests_running", "tusi_requests_waiting", "tusi_kv_blocks_used")
    for _ in range(100):
        lines = (await get(server.host, server.port, "/metrics")).splitlines()
        held = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(names)}
        if held and not any(held.values()):
            break
        await asyncio.sleep(0.1)
    return held


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--model", default="random")
    parser.add_argument("--max-requests", type=int, default=48)
    parser.add_argument("--replicas", type=int, default=0, help="0: the model runs in the server's own process")
    parser.add_argument("--json", type=Path, help="write the figures and the machine there")
    arguments = parser.parse_args()
    options = ["--max-model-len", "4096", "--max-num-seqs", "16", "--max-requests", str(arguments.max_requests)]
    if arguments.replicas:
        options += ["--replicas", str(arguments.replicas)]
    with serving(arguments.model, *options) as server:
        counts, memory = asyncio.run(load(server, arguments))
        held = asyncio.run(owed(server))
    quarter = len(memory) // 4
    early, late = statistics.median(memory[quarter : 2 * quarter]), statistics.median(memory[-quarter:])
    print(", ".join(f"{name}: {count}" for name, count in sorted(counts.items())))
    print(f"memory: {early:.1f} MiB in the second quarter, {late:.1f} in the last, {max(memory):.1f} at most")
    print("still held: " + (", ".join(f"{name} {value:g}" for name, value in held.items() if value) or "nothing"))
    is_clean = set(counts) <= {"whole", "left", "429"} and counts["whole"] > 0 and held and not any(held.values())
    # A server that has just begun still fills its caches: a short run says nothing about memory.
    is_flat = arguments.seconds < JUDGED_SECONDS or late - early <= max(GROWTH * early, GROWTH_MIB)
    if arguments.json:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()}
        figures = {"counts": counts, "memory_mib": memory, "held": held}
        arguments.json.write_text(json.dumps({"name": "server_load", **machine(), **settings, **figures}) + "\n")
    return int(not (is_clean and is_flat))


if __name__ == "__main__":
    raise SystemExit(main())
