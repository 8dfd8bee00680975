from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fixtures.vectors import mean_colour
from tusi.agent.index.documents import index_documents
from tusi.agent.index.pictures import index_pictures
from tusi.agent.toolbox import TOOL_NAMES, ToolResources, check_resources, make_tools, parse_tool_names
from tusi.agent.tools.image_search_http import HttpProvider
from tusi.chat.tool_schemas import TOOL_SCHEMAS
from tusi.core.errors import ConfigError
from tusi.processing.limits import MediaLimits


def test_names_become_tools_in_their_order() -> None:
    names = parse_tool_names("calculator, image_zoom_in_tool,zoom")
    assert names == ("calculator", "zoom")
    assert [tool.name for tool in make_tools(names)] == ["calculator", "image_zoom_in_tool"]
    assert parse_tool_names("none") == ()


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("zom", r"there is no tool 'zom'; there are: zoom, .*calculator.* Did you mean 'zoom'"),
        ("zoom,telescope", "there is no tool 'telescope'; there are: zoom, image_search, knowledge_search, calculator"),
        ("", "the list of tools is empty. Name some of zoom"),
        ("zoom,none", "'none' stands among other tools.*Say it alone"),
    ],
)
def test_other_names_are_refused_with_what_there_is(text: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        parse_tool_names(text)


@pytest.mark.parametrize("name", ["image_search", "knowledge_search"])
def test_a_search_needs_something_to_look_up(name: str, tmp_path: Path) -> None:
    for build in (make_tools, check_resources):
        with pytest.raises(ConfigError, match=f"{name} needs an index to look up. Make one with tusi index"):
            build([name], ToolResources())
        with pytest.raises(ConfigError, match=r"there is no index .*Make one: tusi index docs"):
            build([name], ToolResources(index=tmp_path / "none.index", embed=lambda _: np.ones(3, np.float32)))


def test_an_index_of_the_other_kind_is_no_help(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    index_documents(tmp_path, tmp_path / "i")
    resources = ToolResources(index=tmp_path / "i", embed=lambda _: np.ones(3, np.float32))
    check_resources(["knowledge_search"], resources)
    with pytest.raises(ConfigError, match=r"holds no pictures. Add some: tusi index images FOLDER"):
        check_resources(["image_search"], resources)
    with pytest.raises(ConfigError, match="this backend does not offer one"):
        make_tools(["image_search"], ToolResources(index=tmp_path / "i"))


def test_a_service_stands_in_for_the_index() -> None:
    (tool,) = make_tools(["image_search"], ToolResources(image_search=HttpProvider("https://example.com/search")))
    assert tool.name == "image_search"


def test_every_name_makes_a_tool_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    Image.new("RGB", (40, 40)).save(tmp_path / "b.png")
    index = tmp_path / "i"
    index_documents(tmp_path, index)
    index_pictures(tmp_path, index, mean_colour, MediaLimits())
    tools = make_tools(TOOL_NAMES, ToolResources(index=index, embed=mean_colour))
    assert [tool.name for tool in tools] == ["image_zoom_in_tool", "image_search", "knowledge_search", "calculator"]
    assert [tool.schema for tool in tools] == [TOOL_SCHEMAS[tool.name] for tool in tools]
