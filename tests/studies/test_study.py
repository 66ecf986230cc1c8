"""Which studies there are, and how settings are written and read."""

import dataclasses
import sys
import typing
from pathlib import Path

import pytest

from studies.runner.study import Study, names

COINS = str(Path(__file__).parents[1] / "data" / "studies" / "coins.py")


@pytest.fixture(scope="module")
def coins():
    return Study(COINS)


@pytest.mark.parametrize("name", names())
def test_each_study_has_its_parts_and_settings_that_json_keeps(name):
    study = Study(name)
    assert study.module.__doc__
    assert isinstance(study.version, int)
    assert "threads" in study.fields
    runs = study.runs({}, {})
    tiny = study.tiny({})
    assert len(runs) > 1
    assert tiny
    for settings in runs + tiny:
        assert study.from_json(study.to_json(settings)) == settings
    # What tells runs from each other tells their files too.
    assert len({study.digest(settings) for settings in runs}) == len(runs)
    assert len({*runs}) == len(runs)


def test_a_study_is_found_by_name_or_as_a_file(tmp_path):
    with pytest.raises(ValueError, match=r"NAME must be a study: .*Received: theorie"):
        Study("theorie")
    with pytest.raises(ValueError, match=r"a file that exists. Received: .*none\.py"):
        Study(str(tmp_path / "none.py"))
    (tmp_path / "half.py").write_text("VERSION = 1\n\ndef run(settings): ...\n")
    with pytest.raises(ValueError, match="without Settings and runs and tiny and"):
        Study(str(tmp_path / "half.py"))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("frozen=True", "frozen=False"), ("threads: int", "threads: str")],
)
def test_settings_of_another_kind_are_refused(tmp_path, right, wrong):
    file = tmp_path / "coins.py"
    file.write_text(Path(COINS).read_text().replace(right, wrong))
    with pytest.raises(ValueError, match="a frozen dataclass with a field threads: i"):
        Study(str(file))


@pytest.mark.parametrize(
    "part", ["runs(done)", "tiny()", "tables(done)", "kind(settings)"]
)
def test_an_error_of_a_study_says_where_it_is(tmp_path, part):
    # Its own message alone, "x", would not.
    file = tmp_path / "coins.py"
    text = Path(COINS).read_text()
    file.write_text(
        text.replace(f"def {part}:", f"def {part}:\n    raise OSError('x')")
    )
    name, sign, _ = part.partition("()")
    name = name.partition("(")[0]
    with pytest.raises(RuntimeError, match=rf"{name}\(\) of .*Received: OSError: x\."):
        Study(str(file)).call(name, *([] if sign else [{}]))


def test_a_file_hides_no_module_of_python_and_its_import_may_fail(tmp_path):
    file = tmp_path / "random.py"
    file.write_text("raise ValueError('x')")
    before = sys.modules.get("random")
    with pytest.raises(
        RuntimeError, match=r"The import of .*random\.py must not raise"
    ):
        Study(str(file))
    assert sys.modules.get("random") is before


def test_numbers_that_are_equal_are_one_run(coins):
    make = coins.module.Settings
    one, same = coins.runs({}, {"q": 2})[0], coins.runs({}, {"q": 2.0})[0]
    assert coins.digest(one) == coins.digest(same)
    assert len(coins.runs({}, {"q": 2, "seed": 0})) == 1
    others = [{"q": 1.5}, {"seed": 7}, {"places": ("b",)}, {"threads": 2}]
    changed = [dataclasses.replace(make(1.0), **other) for other in others]
    digests = {coins.digest(settings) for settings in [make(1.0), *changed]}
    assert len(digests) == 5


def test_settings_with_values_of_other_types_are_refused(coins, monkeypatch):
    # NaN equals nothing, so such a run would be missing for ever.
    for wrong in ({"q": float("nan")}, {"places": ("a", 1)}, {"seed": 1.0}):
        run = coins.module.Settings(**{"q": 1.0, **wrong})
        monkeypatch.setattr(coins.module, "runs", lambda done, run=run: [run])
        (name,) = wrong
        with pytest.raises(ValueError, match=f"Settings of coins.*Received: {name}="):
            coins.runs({}, {})


@pytest.mark.parametrize("threads", [0, -1])
def test_a_run_has_a_thread(coins, threads):
    message = f"^threads must be at least 1. Received: threads={threads}"
    with pytest.raises(ValueError, match=message):
        coins.parse(f"threads={threads}")
    fields = coins.to_json(coins.module.Settings(1.0))
    with pytest.raises(ValueError, match=message):
        coins.from_json({**fields, "threads": threads})


def test_the_version_tells_runs_apart(coins, monkeypatch):
    before = coins.digest(coins.module.Settings(1.0))
    monkeypatch.setattr(coins, "version", 4)
    assert coins.digest(coins.module.Settings(1.0)) != before


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("q=3", 3),
        ("q=1.5", 1.5),
        ("seed=4", 4),
        ("best=true", True),
        ("fault=a=b", "a=b"),
        ('places=["x", "y"]', ("x", "y")),
    ],
)
def test_a_setting_is_read_by_its_type(coins, text, value):
    assert coins.parse(text) == (text.partition("=")[0], value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p=3", "with a field of coins: q, places, .*Received: p=3"),
        ("q", "FIELD=VALUE.*Received: q"),
        ("q=much", "--set q must be of type float. Received: q=much"),
        ("seed=1.5", "--set seed must be of type int. Received: seed=1.5"),
        ("best=1", "--set best must be of type bool. Received: best=1"),
        ("places=a", r"places must be of type tuple\[str, ...\]. Received: places=a"),
    ],
)
def test_a_setting_that_is_wrong_is_refused(coins, text, message):
    with pytest.raises(ValueError, match=message):
        coins.parse(text)


def test_settings_have_the_types_that_are_written():
    # What `parse` and `digest` go by.
    for name in names():
        kinds = typing.get_type_hints(Study(name).module.Settings)
        for settings in Study(name).runs({}, {}):
            for field, kind in kinds.items():
                if kind in (str, int, float, bool):
                    assert type(getattr(settings, field)) is kind, (name, field)
