"""What the README shows works."""

import re
from pathlib import Path

import pages

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_its_example_is_that_of_a_page_which_is_run():
    codes = [block for block in pages.blocks(README) if block.language == "python"]
    start = (ROOT / "docs/index.md").read_text()
    for code, says in zip(codes, ["needless_macs", "asked for"], strict=True):
        shown = pages.shown_after(README, code)
        assert says in shown
        [same] = [block for block in pages.blocks(start) if block.code == code.code]
        assert pages.shown_after(start, same) == shown


def test_each_command_is_one_line_of_a_block_of_its_own():
    for name in ("run", "test"):
        [command] = re.findall(
            rf"<!-- command: {name} -->\n```sh\n(.*?)\n```", README, re.DOTALL
        )
        assert command
        assert "\n" not in command


def test_it_is_short():
    assert len(README.splitlines()) <= 150
