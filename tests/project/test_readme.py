"""What the README shows works."""

import doctest
import re
from pathlib import Path

import keras
import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_its_example_runs_and_exports(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.splitlines()) <= 15
    names = {}
    exec(code, names)
    assert (tmp_path / "exported" / "saved_model.pb").exists()
    history = names["history"].history
    assert len(history["val_hoyer/hidden"]) == 3
    assert "of the input of hidden on 500 samples" in capsys.readouterr().out
    assert isinstance(names["model"], keras.Model)


SESSIONS = re.findall(r"```pycon\n(.*?)```", README, re.DOTALL)


def run_session(text):
    """Runs `text` as one typed into a new interpreter; returns how much failed."""
    test = doctest.DocTestParser().get_doctest(text, {}, "README", "README.md", 0)
    assert test.examples
    return doctest.DocTestRunner(verbose=False).run(test).failed


@pytest.mark.parametrize("number", range(len(SESSIONS)))
def test_a_session_runs_as_it_stands(number):
    assert run_session(SESSIONS[number]) == 0


def test_all_that_is_typed_is_run_and_can_fail(capsys):
    typed = [line for line in README.splitlines() if line.startswith(">>> ")]
    run = [line for text in SESSIONS for line in text.splitlines()]
    assert typed == [line for line in run if line.startswith(">>> ")]
    assert run_session(">>> 1 + 1\n3\n") == 1
    assert run_session(">>> unknown\n") == 1


def test_each_command_is_one_line_of_a_block_of_its_own():
    for name in ("run", "test"):
        [command] = re.findall(
            rf"<!-- command: {name} -->\n```sh\n(.*?)\n```", README, re.DOTALL
        )
        assert command
        assert "\n" not in command


def test_its_pictures_are_there():
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", README)
    assert pictures
    for picture in pictures:
        assert (Path(__file__).parents[2] / picture).exists()
