from __future__ import annotations

import pytest

from tusi.agent.toolbox import TOOL_NAMES, make_tools, parse_tool_names
from tusi.core.errors import ConfigError


def test_names_become_tools_in_their_order() -> None:
    names = parse_tool_names("calculator, image_zoom_in_tool,zoom")
    assert names == ("calculator", "zoom")
    assert [tool.name for tool in make_tools(names)] == ["calculator", "image_zoom_in_tool"]
    assert parse_tool_names("none") == ()


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("zom", r"there is no tool 'zom'; there are: zoom, calculator.* Did you mean 'zoom'"),
        ("zoom,telescope", "there is no tool 'telescope'; there are: zoom, calculator"),
        ("", "the list of tools is empty. Name some of zoom"),
        ("zoom,none", "'none' stands among other tools.*Say it alone"),
    ],
)
def test_other_names_are_refused_with_what_there_is(text: str, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        parse_tool_names(text)


def test_every_name_makes_a_tool_of_its_own() -> None:
    assert len({tool.name for tool in make_tools(TOOL_NAMES)}) == len(TOOL_NAMES)
