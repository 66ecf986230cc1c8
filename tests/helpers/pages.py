"""The blocks of code in pages of documentation, run as a reader runs them."""

import contextlib
import doctest
import io
import linecache
import math
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Decimals and percentages may differ a little from one processor to the next.
_FIGURE = re.compile(r"-?\d+\.\d+|\d+(?= ?%)")


class Block(NamedTuple):
    """A fenced block: its language, its text, and where it stands in the page."""

    language: str
    code: str
    start: int
    end: int


def programs():
    """Returns what runs as one program, by name: pages, and each of the recipes."""
    found = {}
    for page in PAGES:
        text, name = page.read_text(), page.relative_to(ROOT).as_posix()
        parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
        if page.stem != "recipes":
            parts = [text]
        for part in parts:
            title = f", {part.splitlines()[0]}" if len(parts) > 1 else ""
            if any(b.language in ("python", "pycon") for b in blocks(part)):
                found[name + title] = part
    return found


def is_recipe(name):
    """Whether a program is one of the recipes, which `test_recipes.py` runs."""
    return name.startswith("docs/recipes.md")


def is_close(want, got):
    """Whether two texts are the same, but for spaces and the last digits of figures.

    Decimals may be off by 5 % or 0.02, percentages by 1.
    """
    figures = zip(_FIGURE.findall(want), _FIGURE.findall(got), strict=False)
    return _without_figures(want) == _without_figures(got) and all(
        math.isclose(float(a), float(b), rel_tol=0.05, abs_tol=0.02 if "." in a else 1)
        for a, b in figures
    )


def _without_figures(text):
    return " ".join(_FIGURE.sub("#", text).split())


def blocks(text):
    """Returns the fenced blocks of a page, in order."""
    return [Block(m[1], m[2], m.start(), m.end()) for m in _FENCE.finditer(text)]


def shown_after(text, block):
    """Returns what a page shows as the output of `block`: the text right below it."""
    for other in blocks(text):
        below = other.start > block.end and not text[block.end : other.start].strip()
        if below and other.language == "text":
            return other.code
    return ""


def run_block(code, where, names):
    """Runs `code` in the namespace `names`, and returns what it prints."""
    # AutoGraph looks for the source of functions there.
    linecache.cache[where] = (len(code), None, code.splitlines(keepends=True), where)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, where, "exec"), names)
    return printed.getvalue()


def run(text, name):
    """Runs the Python of a page in order, as one program.

    Args:
        text: The page in Markdown.
        name: What messages call it.

    Raises:
        AssertionError: if a block prints something else than the page shows.
    """
    names = {"__name__": "__main__"}
    for block in blocks(text):
        where = f"{name}, line {text[: block.start].count(chr(10)) + 1}"
        if block.language == "python":
            want, got = shown_after(text, block), run_block(block.code, where, names)
            assert is_close(want, got), f"{where} prints\n{got}\nand shows\n{want}"
        elif block.language == "pycon":
            test = doctest.DocTestParser().get_doctest(
                block.code, names, where, where, 0
            )
            assert test.examples, f"{where} has no line that begins with >>>"
            report = io.StringIO()
            runner = doctest.DocTestRunner(verbose=False)
            runner.run(test, out=report.write, clear_globs=False)
            assert not runner.failures, report.getvalue()
            names.update(test.globs)
