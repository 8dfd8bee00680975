from __future__ import annotations

import numpy as np
from PIL import Image

from tusi.cli.text_blocks import Block, draw_blocks


def ink(image: Image.Image) -> np.ndarray:
    return (np.asarray(image) != 255).any(axis=2)


def test_nothing_is_written_beyond_the_edges() -> None:
    for text in ("many words " * 40, "x" * 400, "a\n\nb", "混合 text 和字 " * 20, "\t indented"):
        image, _ = draw_blocks([Block(label="l", text=text, max_lines=99)], 400)
        assert image.width == 400
        mask = ink(image)
        assert not mask[:, -4:].any(), text
        assert mask.any()


def test_a_block_grows_with_its_lines_up_to_its_limit() -> None:
    heights = [draw_blocks([Block(label="l", text="\n".join("abcdefgh"[:n]))], 400)[0].height for n in (1, 2, 8)]
    assert heights[1] - heights[0] == 25
    assert heights[2] - heights[0] == 7 * 25
    cut = draw_blocks([Block(label="l", text="a\n" * 50, max_lines=3)], 400)[0]
    assert cut.height == heights[0] + 2 * 25


def test_blocks_stand_under_each_other_with_their_bars() -> None:
    image, _ = draw_blocks(
        [Block(label="a", text="x", bar=(255, 0, 0)), Block(label="b", text="y", bar=(0, 0, 255))], 300
    )
    pixels = np.asarray(image)
    red, blue = ((pixels == colour).all(axis=2) for colour in ((255, 0, 0), (0, 0, 255)))
    assert np.nonzero(red)[0].max() < np.nonzero(blue)[0].min()
    assert (np.nonzero(red)[1].min(), np.nonzero(blue)[1].max()) == (96, 99)


def test_no_block_is_an_empty_picture() -> None:
    assert draw_blocks([], 100)[0].size == (100, 1)
