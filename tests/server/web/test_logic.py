"""The page's logic, apart from a browser: Node runs logic/*.test.js, and boxes are found as Python finds them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import tusi.server
from tusi.chat.boxes import Box, find_shapes

WEB = Path(tusi.server.__file__).parent / "web"
LOGIC = Path(__file__).parent / "logic"
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(
    NODE is None, reason="no Node.js; install it to run the page's logic apart from a browser"
)

LIST = '[{"bbox_2d": [10, 20, 300, 400], "label": "cat"}, {"bbox_2d": [500, 0, 1000, 999.5], "label": "dog"}]'
TEXTS = [
    LIST,
    LIST[:-20],
    f"```json\n{LIST}\n```",
    f'{{"objects": {LIST}}} and more',
    '{"cat": [10, 20, 300, 400], "dog": [500, 0, 1000, 999.5]}',
    'The cat {"bbox_2d": [10, 20, 300, 400], "label": "cat"} and the dog {"point": [500, 0], "name": "狗"}.',
    "At first [9, 9, 99, 99].\n\nNo: [1, 2, 3, 4], and [5, 6, 7, 8].",
    f"A draft: [[1, 2, 3, 4]]\n\nBetter: {LIST}",
    "[[1, 2, 3, 4], [5, 6, 7, 8]]",
    "[[[1, 2, 3, 4]], [[5, 6, 7, 8]]]",
    "Picture 2: [1, 2, 3, 4]",
    "图 1：[1, 2, 3, 4]，第 2 张：[[500, 0], [1000, 999.5]]",
    '{"bbox_2d": [3, 4, 1, 2], "img_idx": 1, "text_content": "x"}',
    '{"a": {"b": {"bbox": [1, 2, 3, 4], "label": ""}}}',
    *("", "[1, 2]", "[1, 2, 3, 4, 5]", '["a", "b", "c", "d"]', "[true, 1, 2, 3]", "{}", "[[]]", "[NaN, 1, 2, 3]"),
    *("[1e999, 1, 2, 3]", '{"bbox_2d": null}', "[1e3, 2e0, -5, 4.25]", "[0.5, 0.5, 1.0, 1.0]", "{" * 300, "[" * 300),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's modules beside their tests, as Node takes them for modules."""
    root = tmp_path_factory.mktemp("logic")
    shutil.copytree(WEB, root / "web")
    shutil.copytree(LOGIC, root / "logic")
    (root / "package.json").write_text('{"type": "module"}')
    return root


def node(folder: Path, *arguments: str, given: str = "") -> str:
    assert NODE is not None
    done = subprocess.run(
        [NODE, *arguments], cwd=folder, input=given, capture_output=True, text=True, encoding="utf-8", timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_logic(folder: Path) -> None:
    names = sorted(file.name for file in LOGIC.glob("*.test.js"))
    said = node(folder, "--test", "--test-reporter=tap", *(f"logic/{name}" for name in names))
    assert len(names) >= 10
    assert "# fail 0" in said


def test_boxes_are_found_as_python_finds_them(folder: Path) -> None:
    (folder / "ask.js").write_text(
        'import { findShapes } from "./web/boxes.js";\n'
        'import { readFileSync, writeSync } from "node:fs";\n'
        "const asked = JSON.parse(readFileSync(0, 'utf8'));\n"
        "writeSync(1, JSON.stringify(asked.map(([text, count]) => findShapes(text, count))));\n"
    )
    asked = [(text, count) for text in TEXTS for count in (1, 2)]
    found = json.loads(node(folder, "ask.js", given=json.dumps(asked)))
    for (text, count), shapes in zip(asked, found, strict=True):
        assert [plain(shape) for shape in find_shapes(text, num_images=count)] == shapes, (text, count)


def plain(shape: Any) -> dict[str, Any]:
    place = (
        {"kind": "box", "corners": list(shape.bbox_2d)}
        if isinstance(shape, Box)
        else {"kind": "point", "at": list(shape.point_2d)}
    )
    return place | {"label": shape.label, "imgIdx": shape.img_idx}
