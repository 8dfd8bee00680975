"""What a model takes when its context is really full: a picture and text to the last token, every block written.

    python benchmarks/full_context.py MODEL [--context 8192] [--image 1024x768] [--decode 16] [--memory anonymous]

MODEL: a folder, best one with a packed file (`packed_start.py FOLDER --prepare` writes the 28 B shape). One prompt of a
 picture and random text is prefilled and continued until it has `--context` tokens. Prints the time of each part,
how many blocks of the cache were written, the peak and steady memory (the kernel's own figures) and the share of it
that lies in huge pages. The 28 B shape takes about a minute and a half on two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from tusi.bench.picture import jpeg_of
from tusi.bench.subject import Subject, load_subject
from tusi.bench.text import checked_step
from tusi.chat.messages import ImagePart
from tusi.chat.prompt import MediaSegment, TextSegment
from tusi.core import machine
from tusi.engine.config import EngineConfig
from tusi.engine.core import EngineCore
from tusi.engine.request import MultiModalFeature, PlaceholderRange, Request
from tusi.engine.sampling_params import SamplingParams
from tusi.models.attention_metadata import AttentionMetadata
from tusi.models.memory_estimate import kv_cache_bytes_per_token


def full_prompt(subject: Subject, size: tuple[int, int], tokens: int, *, max_tokens: int) -> Request:
    """A picture, a question, and as many random words as there is room for."""
    segments = (MediaSegment(ImagePart(jpeg_of(*size, seed=0))), TextSegment("What is in this picture?"))
    processed = subject.processor.process(segments)
    missing = tokens - len(processed.input_ids)
    vocabulary = subject.model.config.text_config.vocab_size
    words = np.random.default_rng(0).integers(3, vocabulary, missing)
    begin = int(processed.position_ids[0, -1]) + 1
    positions = np.tile(np.arange(begin, begin + missing, dtype=np.int32), (3, 1))
    return Request(
        request_id="full",
        prompt_token_ids=(*processed.input_ids, *map(int, words)),
        sampling_params=SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True),
        mm_features=tuple(
            MultiModalFeature(
                mm_hash=item.mm_hash,
                modality=item.modality,
                position=PlaceholderRange(item.offset, item.length),
                data=item,
            )
            for item in processed.media
        ),
        position_ids=np.concatenate([processed.position_ids, positions], axis=1),
        token_types=np.concatenate([processed.moe_mm_token_type_ids, np.zeros(missing, np.int32)]),
        mrope_position_delta=processed.mrope_position_delta,
    )


class Watched:
    """A model whose caches we see: the engine hands them to every forward pass."""

    def __init__(self, subject: Subject) -> None:
        self._model = subject.model
        self.caches: object = ()

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def forward(self, embeds, positions, vision, attn: AttentionMetadata, kv_caches, **more):  # type: ignore[no-untyped-def]
        self.caches = kv_caches
        return self._model.forward(embeds, positions, vision, attn, kv_caches, **more)


def written_blocks(watched: Watched) -> tuple[int, int]:
    """Blocks of the last layer whose keys are not zeros, and all blocks."""
    keys = watched.caches[-1].key_CMHS  # type: ignore[index]
    return int(np.any(keys.reshape(len(keys), -1), axis=1).sum()), len(keys)


def huge_share() -> float | None:
    """Share of the resident memory that lies in huge pages."""
    try:
        text = Path("/proc/self/smaps_rollup").read_text()
    except OSError:
        return None
    sizes = {line.split()[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    return sizes["AnonHugePages:"] / sizes["Rss:"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--image", default="1024x768")
    parser.add_argument("--decode", type=int, default=16, help="tokens of the context that are decoded, not prefilled")
    parser.add_argument("--memory", choices=("anonymous", "mmap"), default="anonymous")
    parser.add_argument("--kv-cache-dtype", choices=("auto", "float32", "bfloat16", "int8"), default="auto")
    options = parser.parse_args()
    width, height = map(int, options.image.split("x"))
    engine_config = EngineConfig(max_model_len=options.context, kv_cache_dtype=options.kv_cache_dtype)
    subject = load_subject(options.model, dtype="auto", engine_config=engine_config, weight_memory=options.memory)
    watched = Watched(subject)
    core = EngineCore(watched, engine_config)  # type: ignore[arg-type]
    begin = time.perf_counter()
    core.add_request(full_prompt(subject, (width, height), options.context - options.decode, max_tokens=options.decode))
    while not checked_step(core):
        pass
    first = time.perf_counter()
    for _ in range(options.decode - 1):
        checked_step(core)
    last = time.perf_counter()
    written, blocks = written_blocks(watched)
    memory = machine.process_memory()
    per_token = kv_cache_bytes_per_token(subject.model.config, engine_config.kv_cache_format)
    print(
        json.dumps(
            {
                "model": options.model,
                "context": options.context,
                "load_seconds": round(subject.load_seconds, 2),
                "first_token_seconds": round(first - begin, 2),
                "prefill_tokens_per_second": round((options.context - options.decode) / (first - begin), 1),
                "decode_tokens_per_second": round((options.decode - 1) / (last - first), 2),
                "blocks_written": written,
                "blocks": blocks,
                "kv_cache_bytes": per_token * options.context,
                "peak_bytes": memory.peak,
                "steady_bytes": memory.resident,
                "huge_page_share": huge_share(),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
