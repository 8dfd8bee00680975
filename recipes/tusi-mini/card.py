"""tusi-mini's scores as the pages that show them: tables for docs/tusi-mini.md and both READMEs.

In: docs/tusi-mini.json and examples/questions.json, which release.py writes. Out: pages with what follows from them
between their markers. Figures are never typed: tests/recipes/test_card.py holds the pages to the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCORES = ROOT / "docs" / "tusi-mini.json"
CARD = ROOT / "docs" / "tusi-mini.md"
READMES = {"en": ROOT / "README.md", "zh": ROOT / "README.zh.md"}
QUESTIONS = ROOT / "examples" / "questions.json"

FAMILIES = {
    "reasoning": ("visual reasoning", "视觉推理"),
    "stem": ("STEM", "理科题"),
    "grounding": ("grounding", "定位"),
    "zoom": ("thinking with images", "用图思考"),
    "tool_use": ("tool use", "工具使用"),
    "video": ("video", "视频"),
    "all": ("all", "全部"),
}
EASY, ALL = "1-3", "all"
LEVELS = ("1", "2", "3", "4", "5")
SPLITS = {
    "heldout_style": ("artwork never seen", "未见过的画风"),
    "heldout_concepts": ("things never seen", "未见过的物体"),
}
QUANTIZED = ("int8", "int4")

STORIES = {
    "board-number": (
        "A canvas with boards; the model finds the board, zooms in on it and reads the number",
        "画布上有几块板子；模型找到要看的那块，放大，读出数字",
    ),
    "find-all": ("The boxes of all things of a kind, drawn where the model said", "模型给出的同类物体的框"),
    "bars": ("A bar chart, the model's thought and its answer", "柱状图、模型的思考与回答"),
}
"""What the examples with a story show."""

TYPED = ("relation",)
"""Those without a story that the READMEs tell to type, too."""

PROGRAM = """```python
from tusi import LLM, SamplingParams

with LLM() as llm:  # or LLM("baidu/ERNIE-4.5-VL-28B-A3B-Thinking")
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "PICTURE"}},
                {"type": "text", "text": "QUESTION"},
            ],
        }
    ]
    [output] = llm.chat(messages, SamplingParams(temperature=0, max_tokens=256))
    print(output.outputs[0].reasoning, output.outputs[0].content)
```"""

Cell = Mapping[str, Any]
Scores = Mapping[str, Any]
Examples = Sequence[Mapping[str, Any]]


def readme_block(scores: Scores, language: str) -> str:
    """The table of a README: every family and difficulty, the held-out sets, tools withheld, quantized copies."""
    which = int(language == "zh")
    reports = scores["reports"]
    head = [("family", "能力")[which], *LEVELS, EASY, *(names[which] for names in SPLITS.values())]
    rows = []
    for family, names in FAMILIES.items():
        levels = reports["eval"][family]
        held_out = (reports[split][family][EASY] for split in SPLITS)
        rows.append([names[which], *(percent(levels[column]) for column in (*LEVELS, EASY)), *map(percent, held_out)])
    zoom, blind = reports["eval"]["zoom"][EASY], reports["no_tools"]["zoom"][EASY]
    costs = [f"{name} {percent(scores['reports'][name][ALL][ALL])}" for name in QUANTIZED]
    total = percent(reports["eval"][ALL][ALL])
    seen, blind_seen = percent(zoom), percent(blind)
    said = (
        f"Thinking with images at difficulties 1-3: {seen} with tools, {blind_seen} when they are withheld "
        "(it was never trained to guess and mostly still writes the call). "
        f"All samples: bf16 {total}, {', '.join(costs)}.",
        f"「用图思考」难度 1-3：可用工具 {seen}，不给工具 {blind_seen}（它没有学过猜，多半仍写出调用）。"
        f"全部样本：bf16 {total}，{'，'.join(costs)}。",
    )[which]
    return "\n".join([table(head, rows), "", said])


def card_block(scores: Scores) -> str:
    """Everything that was measured, with the command of each table."""
    reports, commands = scores["reports"], scores["commands"]
    parts = []
    for name, title in (
        ("eval", "The world as trained, unseen seeds"),
        ("heldout_style", "Artwork never seen (Noto Emoji)"),
        ("heldout_concepts", "Things never seen nor named"),
        ("no_tools", "Tools withheld"),
        ("int8", "Quantized to int8"),
        ("int4", "Quantized to int4"),
    ):
        parts += [f"### {title}", "", *_console(commands[name]), "", report_table(reports[name]), ""]
        if name in QUANTIZED:
            drift = f"drift_{name}"
            parts += ["Next to the original, token by token on the expert's traces:", "", *_console(commands[drift])]
            parts += ["", drift_table(reports[drift]), ""]
    return "\n".join(parts).rstrip()


def report_table(report: Mapping[str, Mapping[str, Cell]]) -> str:
    """A report of `tusi eval world --json`."""
    columns = [column for column in (*LEVELS, EASY, ALL) if column in next(iter(report.values()))]
    rows = []
    for family, cells in report.items():
        whole = cells[ALL]
        counts = [str(whole[name]) for name in ("count", "truncated", "failed")]
        rows.append([FAMILIES[family][0], *(percent(cells[column]) for column in columns), *counts])
    return table(["family", *columns, "samples", "truncated", "failed"], rows)


def drift_table(report: Mapping[str, Cell]) -> str:
    """A report of `tusi drift --json`."""
    rows = [
        [FAMILIES[family][0], str(cell["tokens"]), f"{100 * cell['agreement']:.2f}", f"{cell['kl']:.5f}"]
        for family, cell in report.items()
    ]
    return table(["family", "tokens", "same top token, %", "mean KL, nats"], rows)


def percent(cell: Cell) -> str:
    """As `tusi eval world` prints it: accuracy, and its 95 % interval in brackets."""
    return f"{100 * cell['accuracy']:.0f} ({100 * cell['low']:.0f}-{100 * cell['high']:.0f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def example_commands(entries: Examples, language: str) -> str:
    """What a README tells to type first, and the stories of what then happens."""
    which = int(language == "zh")
    commands = [
        f'tusi ask examples/{entry["picture"]} "{entry["question"]}"'
        for entry in entries
        if entry["story"] or entry["name"] in TYPED
    ]
    parts = ["\n".join(_console(commands))]
    for entry in entries:
        if entry["story"]:
            parts.append(f"![{STORIES[entry['name']][which]}](docs/pictures/{entry['name']}.png)")
    return "\n\n".join(parts)


def example_program(entries: Examples) -> str:
    """The README's first program (the Chinese one has none)."""
    entry = next(entry for entry in entries if entry["name"] == "count")
    return PROGRAM.replace("PICTURE", f"examples/{entry['picture']}").replace("QUESTION", entry["question"])


def with_block(page: str, name: str, block: str) -> str:
    """The page with the block between the markers of that name. Raises ValueError if it has not one pair of them."""
    begin, end = markers(name)
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"the page must hold {begin!r} and after it {end!r}, once each")
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{block}\n\n{end}{after}"


def markers(name: str) -> tuple[str, str]:
    """What stands before and after a block in a page."""
    return f"<!-- {name}: `make release-mini` writes these lines -->", f"<!-- end of {name} -->"


def pages(scores: Scores, entries: Examples) -> dict[Path, str]:
    """Every page that shows scores or examples, with these."""
    card = with_block(CARD.read_text(encoding="utf-8"), "scores", card_block(scores))
    return {CARD: card, **{path: _readme(path, language, scores, entries) for language, path in READMES.items()}}


def _readme(path: Path, language: str, scores: Scores, entries: Examples) -> str:
    page = with_block(path.read_text(encoding="utf-8"), "scores", readme_block(scores, language))
    page = with_block(page, "examples", example_commands(entries, language))
    return page if language == "zh" else with_block(page, "program", example_program(entries))


def _console(commands: Sequence[str]) -> list[str]:
    return ["```bash", *commands, "```"]
