"""Ask a question about pictures.

    python examples/01_ask_a_picture.py [MODEL QUESTION PICTURE ...]

MODEL is a checkpoint folder or a model that `tusi pull` fetched. Without one, tusi-mini, which comes with the package,
answers a question of its own small world.
"""

import json
import sys
from pathlib import Path

from tusi import LLM, SamplingParams

FOLDER = Path(__file__).parent

if len(sys.argv) > 1:
    model, question, *pictures = sys.argv[1:]
else:
    known = {entry["name"]: entry for entry in json.loads((FOLDER / "questions.json").read_text(encoding="utf-8"))}
    model, question = "tusi-mini", known["count"]["question"]
    pictures = [str(FOLDER / known["count"]["picture"])]

content = [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures]
content.append({"type": "text", "text": question})

with LLM(model) as llm:
    params = SamplingParams(temperature=0, max_tokens=8192 if model != "tusi-mini" else 512)
    [output] = llm.chat([{"role": "user", "content": content}], params)
    completion = output.outputs[0]
    print("Thoughts:", completion.reasoning)
    print("Answer:", completion.content)
    print(f"({output.usage.image_tokens} image tokens, finish_reason={completion.finish_reason})")
