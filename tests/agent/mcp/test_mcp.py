"""Our tools served over MCP, and used over MCP: the same SDK on both sides, a real process between them."""

from __future__ import annotations

import base64
import io
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image

from tusi.agent.mcp.client import McpConnection
from tusi.agent.mcp.server import make_server, published, run_published
from tusi.agent.tool import ConversationMedia, ToolError, ToolRunner
from tusi.agent.tools.calculator import Calculator
from tusi.agent.tools.zoom import ImageZoomInTool
from tusi.backends.fake import FakeBackend, FakeReply
from tusi.chat.messages import ImagePart, TextPart, ToolCall
from tusi.chat.tool_schemas import CALCULATOR, IMAGE_SEARCH, IMAGE_ZOOM_IN_TOOL
from tusi.cli.main import main
from tusi.core.errors import BackendUnavailable, ConfigError

OURS = shlex.join([sys.executable, "-c", "import sys; from tusi.cli.main import main; sys.exit(main(['mcp']))"])


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting Python takes long where many tests run at once."""
    monkeypatch.setattr("tusi.agent.mcp.client.START_TIMEOUT", 300.0)


def test_tools_that_look_take_the_picture_as_an_argument() -> None:
    zoom = published(IMAGE_ZOOM_IN_TOOL)
    assert list(zoom["properties"]) == ["image", "bbox_2d", "label"]
    assert zoom["required"] == ["image", "bbox_2d"]
    search = published(IMAGE_SEARCH)
    assert (list(search["properties"]), search["required"]) == (["image"], ["image"])
    assert published(CALCULATOR) == CALCULATOR["function"]["parameters"]
    assert "image" not in IMAGE_ZOOM_IN_TOOL["function"]["parameters"]["properties"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bbox_2d": [0, 0, 9, 9]}, "error: 'image' is missing; give the picture as a path"),
        ({"image": 3}, "error: 'image' is missing"),
        ({"image": "a.png", "img_idx": 0}, "error: there is no argument 'img_idx'"),
        ({"image": "nowhere.png", "bbox_2d": [0, 0, 9, 9]}, "error: the file 'nowhere.png' cannot be opened"),
    ],
)
def test_what_cannot_be_looked_at_is_told(arguments: dict[str, object], message: str) -> None:
    (part,) = run_published(ToolRunner([ImageZoomInTool()]), "image_zoom_in_tool", arguments)
    assert isinstance(part, TextPart)
    assert part.text.startswith(message)


def test_through_a_real_process_and_back(tmp_path: Path) -> None:
    Image.new("RGB", (400, 200), (9, 99, 199)).save(tmp_path / "a.png")
    with McpConnection(OURS) as connection:
        zoom, calculator = connection.tools()
        assert (zoom.name, calculator.name) == ("image_zoom_in_tool", "calculator")
        assert calculator.schema == CALCULATOR
        assert calculator.call({"expression": "6*7"}, ConversationMedia()) == (TextPart("42"),)
        arguments = {"image": str(tmp_path / "a.png"), "bbox_2d": [0, 0, 500, 500]}
        (crop,) = zoom.call(arguments, ConversationMedia())
        assert isinstance(crop, ImagePart)
        assert crop.source.shape == (158, 317, 3)  # type: ignore[attr-defined]
        assert crop.source[5, 5].tolist() == [9, 99, 199]  # type: ignore[index]
        with pytest.raises(ToolError) as caught:
            calculator.call({"expression": "import os"}, ConversationMedia())
        assert "import" in str(caught.value)
        assert not str(caught.value).startswith("error")  # the runner that shows it says so itself
        buffer = io.BytesIO()
        Image.new("RGB", (9, 9)).save(buffer, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        assert isinstance(zoom.call({"image": url, "bbox_2d": [0, 0, 999, 999]}, ConversationMedia())[0], ImagePart)
    with pytest.raises(ToolError, match="the server of calculator is gone"):
        calculator.call({"expression": "1"}, ConversationMedia())


def test_ask_offers_a_servers_tools(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    backend = FakeBackend([FakeReply(tool_calls=(ToolCall("x", "calculator", '{"expression": "2*21"}'),)), "42."])
    monkeypatch.setattr("tusi.cli.session.load_backend", lambda name, options: backend)
    assert main(["ask", "Six times seven?", "--mcp", OURS, "--model", "fake"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "42.\n"
    assert "<- 42\n" in captured.err
    assert [tool["function"]["name"] for tool in backend.requests[0].tools] == ["image_zoom_in_tool", "calculator"]


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("no-such-command-here --x", "cannot be used .*Check the command or the URL"),
        (shlex.join([sys.executable, "-c", "pass"]), "cannot be used .*Check the command"),
        ("http://127.0.0.1:1/mcp", "cannot be used"),
        ("'unclosed", "cannot be read .*Close quotes"),
        (" ", "the MCP server is empty"),
    ],
)
def test_a_server_that_cannot_be_reached_is_refused(target: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice), McpConnection(target):
        raise AssertionError("it was reached")


def test_without_the_sdk_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'tusi\[mcp\]'"):
        McpConnection("anything")
    with pytest.raises(BackendUnavailable, match=r"pip install 'tusi\[mcp\]'"):
        make_server([Calculator()])


@pytest.mark.parametrize(
    ("args", "advice"),
    [
        (("--tools", "none"), "--tools none leaves nothing to serve"),
        (("--tools", "lens"), "there is no tool 'lens'"),
        (("--tools", "knowledge_search"), "needs an index to look up"),
        (("--model", "m"), "--model m has nothing to act on"),
    ],
)
def test_wrong_usage_of_tusi_mcp(args: tuple[str, ...], advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mcp", *args]) == 2
    assert advice in capsys.readouterr().err
