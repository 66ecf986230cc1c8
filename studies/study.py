"""A study: a module that lists its runs, and the function that does one.

Such a module has

- a docstring: what it asks, what it trains, what it measures;
- `VERSION`, an integer to raise whenever a figure changes its meaning;
- `Settings`, a frozen dataclass of all that decides the figures of a run. Its fields
  are text, numbers, booleans, None and tuples of these. `threads` is one of them: the
  number of threads that TensorFlow has in the run;
- `runs(done)`, which returns the settings of all runs, in the order in which they
  should run. `done` has the figures of those that are finished, so a run may depend on
  others. When all are finished it is called again, until it names nothing new;
- `tiny()`, the settings of a few runs of seconds, through the same code;
- `run(settings)`, which does one run and returns a dict of figures. It is called in a
  process of its own;
- `tables(done)`, Markdown made from figures alone;
- `draw(done, folder)`, which writes pictures;
- perhaps `kind(settings)`: runs of one kind take about the same time.
"""

import dataclasses
import hashlib
import importlib
import importlib.util
import json
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parent
PARTS = ("VERSION", "Settings", "runs", "tiny", "run", "tables", "draw")

Figures = dict[str, Any]
Done = dict[Any, Figures]  # By the settings, a dataclass of each study's own.


def names() -> list[str]:
    """Returns the names of the studies in this folder."""
    files = sorted(FOLDER.glob("*.py"))
    return [f.stem for f in files if re.search(r"^VERSION\b", f.read_text(), re.M)]


class Study:
    """A module that is a study.

    Args:
        address: Name of a study in this folder, or the path of a file that is one.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.module = _load(address)
        missing = [part for part in PARTS if not hasattr(self.module, part)]
        if missing:
            raise ValueError(
                f"A study must have {', '.join(PARTS)}. Received: {address}, without "
                f"{' and '.join(missing)}. `studies/study.py` says what each is."
            )
        self.name = Path(address).stem
        self.version: int = self.module.VERSION
        self._types = typing.get_type_hints(self.module.Settings)

    @property
    def fields(self) -> set[str]:
        """The names of what is set in a run."""
        return {*self._types}

    def runs(self, done: Mapping[Any, Figures], changes: Mapping[str, Any]) -> list:
        """Returns the settings of all runs that are known by now, without repeats.

        Args:
            done: Figures of the runs that are finished.
            changes: Values of fields that all runs should have instead of their own.
        """
        return self._changed(self.module.runs(done), changes)

    def tiny(self, changes: Mapping[str, Any]) -> list:
        """Returns the settings of a few short runs."""
        return self._changed(self.module.tiny(), changes)

    def _changed(self, runs: Sequence, changes: Mapping[str, Any]) -> list:
        settings = [dataclasses.replace(run, **changes) for run in runs]
        return list(dict.fromkeys(map(self._typed, settings)))

    def _typed(self, settings):
        """Makes 2 where a float is wanted 2.0, so that equal settings have one text."""
        floats = {
            name: float(getattr(settings, name))
            for name, kind in self._types.items()
            if kind is float
        }
        return dataclasses.replace(settings, **floats)

    def kind(self, settings: Any) -> str:
        """Returns the name of what takes about as long as this run."""
        kind = getattr(self.module, "kind", None)
        return kind(settings) if kind else "run"

    def to_json(self, settings: Any) -> dict[str, Any]:
        """Returns the settings as JSON has them."""
        return json.loads(json.dumps(dataclasses.asdict(settings)))

    def from_json(self, fields: Mapping[str, Any]) -> Any:
        """Returns the settings of `to_json`; raises TypeError if they are others."""
        return self._typed(self.module.Settings(**_tuples(dict(fields))))

    def parse(self, change: str) -> tuple[str, Any]:
        """Returns the field and the value of a text such as `epochs=3`."""
        field, sign, value = change.partition("=")
        if not sign or field not in self._types:
            raise ValueError(
                f"--set must be FIELD=VALUE, with a field of {self.name}: "
                f"{', '.join(self._types)}. Received: {change}."
            )
        kind = self._types[field]
        if kind is str:
            return field, value
        try:
            value = _tuples(json.loads(value.lower() if kind is bool else value))
        except json.JSONDecodeError:
            value = None if value == "None" else value
        if kind in (int, float, bool) and not (
            type(value) is kind or (kind is float and type(value) is int)
        ):
            raise ValueError(
                f"--set {field} must be of type {kind.__name__}. Received: {change}."
            )
        return field, value

    def digest(self, settings: Any) -> str:
        """Returns what tells this run of this version from all others."""
        known = [self.name, self.version, self.to_json(settings)]
        text = json.dumps(known, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _tuples(value):
    """Turns lists back into the tuples that JSON does not have."""
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    if isinstance(value, dict):
        return {key: _tuples(each) for key, each in value.items()}
    return value


def _load(address: str) -> ModuleType:
    if not address.endswith(".py"):
        if address not in names():
            raise ValueError(
                f"NAME must be a study: {', '.join(names())}, or the path of a file "
                f"that is one. Received: {address}."
            )
        return importlib.import_module(f"studies.{address}")
    path = Path(address).resolve()
    if not path.is_file():
        raise ValueError(
            f"NAME must be a study, or a file that exists. Received: {address}."
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    # A dataclass looks its module up by name.
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
