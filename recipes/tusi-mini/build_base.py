"""Write the folder that tusi-mini's training starts from: configuration, tokenizer, template, settings; no weights.

    python recipes/tusi-mini/build_base.py recipes/tusi-mini/base

The tokenizer is BPE over the world's own text (train split, both languages), with the model family's special tokens,
digits one by one. Rerunning it gives the same files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from tusi.models.config import Ernie4_5_VLMoeConfig, Ernie4_5_VLMoeTextConfig, Ernie4_5_VLMoeVisionConfig
from tusi.models.config_write import config_to_dict
from tusi.models.random_tokenizer import small_tokenizer_files
from tusi.tasks.world.atlas import COLOURS, load_concepts
from tusi.tasks.world.dense import dense_scene
from tusi.tasks.world.generate import DIFFICULTIES, FAMILIES, LANGUAGES, generate
from tusi.tasks.world.wording import Words

VOCAB_SIZE = 2560
MAX_IMAGE_TOKENS = 100
MAX_FRAME_TOKENS = 36
# A word with the space before it, a run of Chinese, a run of punctuation, one digit, one line break.
WORDS = r" ?[A-Za-z]+| ?[\u4e00-\u9fff]+|[0-9]| ?[^\sA-Za-z0-9\u4e00-\u9fff]+|\s"
SEEDS = range(400)
TEMPLATE_WORDS = ("User", "Assistant", "Picture", " Picture", "Video", " Video", "yes", "no", *COLOURS)
OFTEN = 3000

TEXT = Ernie4_5_VLMoeTextConfig(
    vocab_size=VOCAB_SIZE,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=32,
    max_position_embeddings=8192,
    mrope_section=(5, 5, 6),
    moe_num_experts=8,
    moe_intermediate_size=(128, 48),
    moe_k=2,
    moe_num_shared_experts=2,
    mlp_layer_types=("dense", "sparse", "sparse", "sparse"),
)
VISION = Ernie4_5_VLMoeVisionConfig(depth=4, hidden_size=128, intermediate_size=512, num_heads=4)


def texts() -> Iterator[str]:
    """What the model reads and writes in the train split; names and the template's words often enough to be whole."""
    for concept in load_concepts():
        for language in LANGUAGES:
            name = Words(language).name(concept)
            yield from (name, f" {name}") * OFTEN
    yield from TEMPLATE_WORDS * OFTEN
    for seed in SEEDS:
        for language in LANGUAGES:
            for difficulty in DIFFICULTIES:
                for turn in dense_scene(seed, difficulty, language).turns:
                    yield f"{turn.question} {turn.answer}"
            for family in FAMILIES:
                sample = generate(family, 1 + seed % 5, language, seed)
                yield sample.question
                for message in sample.trace:
                    yield message.reasoning or ""
                    yield message.text
                    yield from (call.arguments for call in message.tool_calls)


def train_merges(num_merges: int) -> tuple[list[str], list[tuple[str, str]]]:
    """The characters of the world, and the most useful merges of them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), "isolated")
    trainer = trainers.BpeTrainer(vocab_size=100_000, min_frequency=2, show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [(left, right) for left, right in model["merges"]][:num_merges]
    characters = {piece for piece in model["vocab"] if len(piece) == 1} | {chr(code) for code in range(32, 127)}
    return sorted(c for c in characters if not c.isdigit() and c != "\n"), merges


def tokenizer_files() -> tuple[dict[str, bytes], dict[str, int]]:
    """As many merges as VOCAB_SIZE leaves room for."""
    characters, merges = train_merges(VOCAB_SIZE)
    split = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    fixed = len(small_tokenizer_files(characters, [], pre_tokenizer=split)[1])
    return small_tokenizer_files(characters, merges[: VOCAB_SIZE - fixed], pre_tokenizer=split)


def build(folder: Path) -> None:
    """Write the files. The chat template beside them is written by hand and kept."""
    files, vocab = tokenizer_files()
    config = Ernie4_5_VLMoeConfig(
        text_config=TEXT,
        vision_config=VISION,
        image_token_id=vocab["<|IMAGE_PLACEHOLDER|>"],
        image_start_token_id=vocab["<|IMAGE_START|>"],
        image_end_token_id=vocab["<|IMAGE_END|>"],
        video_token_id=vocab["<|VIDEO_PLACEHOLDER|>"],
        video_start_token_id=vocab["<|VIDEO_START|>"],
        video_end_token_id=vocab["<|VIDEO_END|>"],
        tie_word_embeddings=True,
    )
    cell = VISION.patch_size * VISION.spatial_merge_size
    preprocessor = {
        "image_processor_type": "Ernie4_5_VLMoeImageProcessor",
        "patch_size": VISION.patch_size,
        "merge_size": VISION.spatial_merge_size,
        "min_pixels": 4 * cell * cell,
        "max_pixels": MAX_IMAGE_TOKENS * cell * cell,
    }
    video = {
        "min_pixels": 4 * cell * cell,
        "max_pixels": MAX_FRAME_TOKENS * cell * cell,
        "fps": 1.0,
        "min_frames": 4,
        "max_frames": 16,
    }
    generation = {"eos_token_id": vocab["</s>"], "do_sample": False}
    files["config.json"] = _json(config_to_dict(config, "transformers"))
    files["preprocessor_config.json"] = _json(preprocessor)
    files["video_preprocessor_config.json"] = _json(video)
    files["generation_config.json"] = _json(generation)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


if __name__ == "__main__":
    build(Path(sys.argv[1]))
