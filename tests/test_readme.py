"""What the README shows works."""

import re
from pathlib import Path

import keras

README = (Path(__file__).parents[1] / "README.md").read_text()


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
        assert (Path(__file__).parents[1] / picture).exists()
