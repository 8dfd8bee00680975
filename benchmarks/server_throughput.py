"""What does the way over HTTP cost? The same work by `LLM.generate` and by clients of `tusi serve`, in turns.

    python benchmarks/server_throughput.py [--model small] [--clients 1 8 32] [--rounds 3] [--replicas N] [--json FILE]

Each of N clients sends its requests one after another, streamed; offline, the engine gets all of them at once and may
run N together. Prompts are token ids that no other request shares. Both sides stay loaded and are asked alternately;
the ratio is the median of the rounds' ratios. The clients run on the same machine: their CPU time is shown, and is part
of what the server's figure pays. Exits with 1 if a ratio is below 0.9.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from engine_memory import machine
from serving import Server, model_path, post_stream, serving

from tusi.backends.llm import LLM
from tusi.engine.sampling_params import SamplingParams

REQUIRED = 0.9


def prompts(count: int, length: int, seed: int) -> list[list[int]]:
    """Token ids that are text in every vocabulary, and start differently."""
    rng = random.Random(seed)
    return [[rng.randrange(300, 1000) for _ in range(length)] for _ in range(count)]


def offline(pipe: Connection, model: str, dtype: str, clients: int, num_slots: int) -> None:
    """A process that answers (prompts, output length) with the seconds that LLM.generate took."""
    with LLM(model, dtype=dtype, max_model_len=num_slots, max_num_seqs=clients) as llm:
        pipe.send("ready")
        while (work := pipe.recv()) is not None:
            token_ids, length = work
            params = SamplingParams(max_tokens=length, ignore_eos=True, temperature=0.0)
            started = time.perf_counter()
            outputs = llm.generate([{"prompt_token_ids": ids} for ids in token_ids], params, use_tqdm=False)
            seconds = time.perf_counter() - started
            assert all(len(output.outputs[0].token_ids) == length for output in outputs)
            pipe.send(seconds)


async def online(server: Server, clients: int, token_ids: list[list[int]], length: int) -> None:
    """The same work by clients."""
    waiting = list(token_ids)

    async def client() -> None:
        while waiting:
            body = {"prompt": waiting.pop(), "max_tokens": length, "ignore_eos": True, "temperature": 0, "stream": True}
            reply = await post_stream(server.host, server.port, "/v1/completions", body)
            assert (reply.status, reply.ended) == (200, True), reply

    await asyncio.gather(*(client() for _ in range(clients)))


def measure(arguments: argparse.Namespace, model: str, clients: int) -> dict[str, float]:
    """Medians for one number of clients."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # Nothing is preempted, and 32 clients fit the small models, which take 8,192 tokens.
    num_slots = max(1024, clients * (arguments.input_len + arguments.output_len + 32))
    process = context.Process(target=offline, args=(theirs, model, arguments.dtype, clients, num_slots), daemon=True)
    process.start()
    theirs.close()  # so that a process that dies is an EOFError here and not a wait without end
    ours.recv()
    options = ["--dtype", arguments.dtype, "--max-model-len", str(num_slots), "--max-num-seqs", str(clients)]
    if arguments.replicas:
        options += ["--replicas", str(arguments.replicas)]
    rows = []
    with serving(model, *options) as server:
        for number in range(-1, arguments.rounds):
            count = clients * arguments.requests
            work = prompts(count, arguments.input_len, seed=number)
            length = arguments.output_len if number >= 0 else 8
            ours.send((work, length))
            seconds_offline = ours.recv()
            used, started = time.process_time(), time.perf_counter()
            asyncio.run(online(server, clients, work, length))
            seconds_online = time.perf_counter() - started
            if number >= 0:
                tokens = count * length
                rows.append(
                    (tokens / seconds_offline, tokens / seconds_online, time.process_time() - used, seconds_online)
                )
    ours.send(None)
    process.join()
    ratios = [online_speed / offline_speed for offline_speed, online_speed, _, _ in rows]
    return {
        "clients": clients,
        "offline_tok_s": round(statistics.median(row[0] for row in rows), 1),
        "server_tok_s": round(statistics.median(row[1] for row in rows), 1),
        "ratio": round(statistics.median(ratios), 3),
        "worst": round(min(ratios), 3),
        "client_cpu": round(statistics.median(row[2] / row[3] for row in rows), 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small", help="small (random weights, written on the spot), or any model")
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=3, help="of each client, a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--input-len", type=int, default=64)
    parser.add_argument("--output-len", type=int, default=128)
    parser.add_argument("--replicas", type=int, default=0, help="0: the model runs in the server's own process")
    parser.add_argument("--json", type=Path, help="write the figures and the machine there")
    arguments = parser.parse_args()
    results = []
    print(
        f"{'clients':>7}  {'offline tok/s':>13}  {'server tok/s':>12}  {'ratio':>6}  {'worst':>6}  {'client CPU':>10}"
    )
    with tempfile.TemporaryDirectory() as folder:
        model = model_path(arguments.model, Path(folder))
        for clients in arguments.clients:
            row = measure(arguments, model, clients)
            results.append(row)
            print(
                f"{clients:7d}  {row['offline_tok_s']:13.1f}  {row['server_tok_s']:12.1f}  {row['ratio']:6.3f}  "
                f"{row['worst']:6.3f}  {row['client_cpu']:10.1%}",
                flush=True,
            )
    if arguments.json:
        settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(arguments).items()}
        arguments.json.write_text(
            json.dumps({"name": "server_throughput", **machine(), **settings, "rows": results}) + "\n"
        )
    return int(min(row["ratio"] for row in results) < REQUIRED)


if __name__ == "__main__":
    raise SystemExit(main())
