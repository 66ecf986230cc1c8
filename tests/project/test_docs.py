"""What the pages of the documentation show works, and what they name is there."""

import re

import pages
import pytest
from pages import PAGES, ROOT

import keras_sparseout
from keras_sparseout import metrics, models, ops, plots
from studies.runner import study as studies

TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "RELEASE.md", *PAGES]
# A folder of the repository, then a path in it.
FILE = re.compile(
    r"`((?:keras_sparseout|tests|docs|examples|studies|benchmarks|\.ci)/[\w./*-]*)`"
)


PROGRAMS = pages.programs()


@pytest.mark.parametrize("name", [n for n in PROGRAMS if not pages.is_recipe(n)])
def test_a_page_prints_what_it_shows(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pages.run(PROGRAMS[name], name)


def test_every_python_block_is_in_a_program():
    every = [
        block.code
        for page in PAGES
        for block in pages.blocks(page.read_text())
        if block.language in ("python", "pycon")
    ]
    assert len(every) > 40
    run = [block.code for text in PROGRAMS.values() for block in pages.blocks(text)]
    assert set(every) <= set(run)
    # A block under another name, or an indented one, would be left out.
    languages = {b.language for page in PAGES for b in pages.blocks(page.read_text())}
    assert languages == {"python", "pycon", "text", "sh"}
    for text in (page.read_text() for page in PAGES):
        assert text.count("```") == 2 * len(pages.blocks(text))


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "prints"),
        ("```python\nprint(1)\n```\n", "prints"),
        ("```python\nprint(0.5)\n```\n\n```text\n0.54\n```\n", "prints"),
        ("```python\nx = 1\n```\n\n```text\n1\n```\n", "prints"),
        ("```pycon\n>>> 1 + 1\n3\n```\n", "Expected"),
        ("```pycon\n>>> unknown\n```\n", "NameError"),
        ("```pycon\n1 + 1\n```\n", "no line that begins"),
    ],
)
def test_a_page_that_is_wrong_fails(page, says):
    with pytest.raises(AssertionError, match=says):
        pages.run(page, "page")


def test_the_last_digits_of_figures_may_differ():
    pages.run("```python\nprint('a', 0.504)\n```\n\n```text\na  0.50\n```\n", "page")


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_and_pictures_are_there(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.DOTALL)
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not link.startswith("https://"):
            assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_files_that_are_named_are_there(path):
    for name in FILE.findall(path.read_text()):
        assert list(ROOT.glob(name.rstrip("/"))), name


def test_each_command_names_a_file_and_options_that_are_there():
    for path in TEXTS:
        for command in re.findall(r"`(python [\w/]+\.py[^`]*)`", path.read_text()):
            script, *options = command.split()[1:]
            assert (ROOT / script).exists(), command
            source = (ROOT / script).read_text()
            for option in options:
                if option.startswith("--"):
                    assert f'"{option}"' in source, command


def test_each_study_that_is_named_is_there_and_has_a_page():
    source = (ROOT / "studies/__main__.py").read_text()
    for path in TEXTS:
        for line in re.findall(r"python -m studies\b([^`\n#]*)", path.read_text()):
            words = line.split()
            known = {"report", "FILE", "NAME", "mine.py", *studies.names()}
            assert {*words[:1]} <= known, (path, line)
            for option in (word for word in words if word.startswith("--")):
                assert f'"{option}"' in source, (path, line)
    assert len(studies.names()) >= 5
    for name in studies.names():
        assert (ROOT / f"docs/studies/{name}.md").exists(), name


def test_contributing_names_what_is_in_its_files():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`(\w+)` in\s+`([\w/]+\.py)`", text)
    assert len(named) >= 2
    for name, path in named:
        assert re.search(rf"\b{name}\b", (ROOT / path).read_text()), (name, path)


def test_contributing_draws_every_room():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    drawn = set(re.findall(r"^ .*?\b(\w+)/ ", text, re.MULTILINE))
    drawn |= set(re.findall(r" (\w+)/  ", text))
    folders = (ROOT / "keras_sparseout").glob("*/__init__.py")
    assert drawn == {folder.parent.name for folder in folders}


def test_the_reference_has_every_public_name():
    text = "".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))
    listed = {line.rsplit(".", 1)[1] for line in re.findall(r"^::: (\S+)", text, re.M)}
    rooms = {"callbacks", "layers", "metrics", "models", "ops", "plots"}
    public = {*keras_sparseout.__all__, *metrics.__all__, *ops.__all__, *plots.__all__}
    public |= {*models.__all__}
    public |= {*keras_sparseout.masks.__all__}
    assert listed == public - rooms | {"SparsifyTable", "SparsityTable"}


def test_the_version_is_one():
    version = keras_sparseout.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert "attr: keras_sparseout.__version__" in (ROOT / "setup.cfg").read_text()
