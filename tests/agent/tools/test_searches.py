"""knowledge_search and image_search as the model meets them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fixtures.vectors import mean_colour
from tusi.agent.index.documents import index_documents
from tusi.agent.index.pictures import PictureIndex, index_pictures
from tusi.agent.tool import ConversationMedia, ToolRunner
from tusi.agent.tools.image_search import ImageSearch, IndexProvider, SearchHit
from tusi.agent.tools.knowledge_search import KnowledgeSearch
from tusi.chat.messages import ImagePart, Part, TextPart, ToolCall
from tusi.core.errors import ConfigError
from tusi.processing.limits import MediaLimits

RED = ImagePart(np.full((50, 50, 3), (250, 0, 0), np.uint8))
MEDIA = ConversationMedia((RED,))


def said(tool: KnowledgeSearch | ImageSearch, arguments: str, media: ConversationMedia = MEDIA) -> tuple[Part, ...]:
    return ToolRunner([tool]).run(ToolCall("x", tool.name, arguments), media)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    for number in range(7):
        (tmp_path / f"{number}.md").write_text(f"# Note {number}\n\nCats sleep {number} hours.\n")
    index_documents(tmp_path, tmp_path / "i")
    return tmp_path / "i"


def test_passages_come_with_their_source(docs: Path) -> None:
    (part,) = said(KnowledgeSearch(docs), '{"query": "cats 3"}')
    assert isinstance(part, TextPart)
    assert part.text.startswith("[1] 3.md, line 3 (Note 3)\nCats sleep 3 hours.\n\n[2] ")
    assert part.text.count("hours") == 5
    assert said(KnowledgeSearch(docs), '{"query": "dogs"}') == (TextPart("no entry found; try other words"),)


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        ("{}", "'query' is missing; the arguments are: query"),
        ('{"query": 7}', "query is '7'; it must be text"),
        ('{"query": " "}', "it must be text; write the words"),
        ('{"query": "a", "limit": 9}', "there is no argument 'limit'"),
        ('{"query": "' + "a" * 1001 + '"}', "query has 1001 characters, 1000 are read"),
    ],
)
def test_bad_queries_are_told_to_the_model(docs: Path, arguments: str, advice: str) -> None:
    (part,) = said(KnowledgeSearch(docs), arguments)
    assert isinstance(part, TextPart)
    assert part.text.startswith("error: ")
    assert advice in part.text


def test_an_index_that_vanishes_is_told_to_the_model(docs: Path) -> None:
    tool = KnowledgeSearch(docs)
    docs.unlink()
    (part,) = said(tool, '{"query": "a"}')
    assert isinstance(part, TextPart)
    assert part.text.startswith("error: there is no index")


def test_an_index_without_documents_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    index_pictures(tmp_path, tmp_path / "i", mean_colour, MediaLimits())
    with pytest.raises(ConfigError, match=r"holds no documents. Add some: tusi index docs FOLDER"):
        KnowledgeSearch(tmp_path / "i")


def test_pictures_come_with_their_captions(tmp_path: Path) -> None:
    for name, colour in (("a rose", (240, 0, 0)), ("a leaf", (0, 200, 0))):
        Image.new("RGB", (60, 40), colour).save(tmp_path / f"{name}.png")
    index_pictures(tmp_path, tmp_path / "i", mean_colour, MediaLimits())
    tool = ImageSearch(IndexProvider(PictureIndex(tmp_path / "i", mean_colour)))
    caption, picture, second, _ = said(tool, '{"img_idx": 0}')
    assert caption == TextPart("[1] a rose (likeness 1.00), a rose.png\n")
    assert isinstance(picture, ImagePart)
    assert np.asarray(picture.source).shape == (40, 60, 3)
    assert isinstance(second, TextPart)
    assert second.text.startswith("[2] a leaf (likeness 0.")


class Provider:
    def __init__(self, *hits: SearchHit) -> None:
        self.hits = list(hits)

    def search(self, picture: Image.Image, limit: int) -> list[SearchHit]:
        return self.hits[:limit]


def test_a_hit_whose_picture_is_none_keeps_its_caption() -> None:
    parts = said(ImageSearch(Provider(SearchHit("a"), SearchHit("b", "there", b"no picture"))), '{"img_idx": 0}')
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    assert len(parts) == len(texts) == 2
    assert texts[0] == "[1] a\n"
    assert texts[1].startswith("[2] b, there\n(its picture cannot be shown: ")
    assert said(ImageSearch(Provider()), '{"img_idx": 0}') == (TextPart("no similar picture found"),)


@pytest.mark.parametrize(
    ("arguments", "media", "advice"),
    [
        ("{}", MEDIA, "'img_idx' is missing"),
        ('{"img_idx": 1}', MEDIA, "img_idx is 1; the conversation has 1 picture(s)"),
        ('{"img_idx": "0"}', MEDIA, "img_idx is 0; the conversation has"),
        ('{"img_idx": 0}', ConversationMedia(), "the conversation has no picture"),
    ],
)
def test_bad_indices_are_told_to_the_model(arguments: str, media: ConversationMedia, advice: str) -> None:
    (part,) = said(ImageSearch(Provider()), arguments, media)
    assert isinstance(part, TextPart)
    assert advice in part.text
