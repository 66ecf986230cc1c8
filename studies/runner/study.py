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
  process of its own. A figure that is not finite is None for all that comes after;
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

from studies.runner import typed

# Of the studies.
FOLDER = Path(__file__).parents[1]
PARTS = ("VERSION", "Settings", "runs", "tiny", "run", "tables", "draw")

Figures = dict[str, Any]
Done = dict[Any, Figures]  # By the settings, a dataclass of each study's own.


def names() -> list[str]:
    """Returns the names of the studies in this folder."""
    files = sorted(FOLDER.glob("*.py"))
    return [f.stem for f in files if re.search(r"^VERSION\b", f.read_text(), re.M)]


class _Found(Mapping):
    """Figures that are found by settings from before a change as well."""

    def __init__(self, done, change):
        self._done, self._change = done, change

    def __getitem__(self, settings):
        return self._done[self._change(settings)]

    def __iter__(self):
        return iter(self._done)

    def __len__(self):
        return len(self._done)


class Study:
    """A module that is a study.

    Args:
        address: Name of a study in this folder, or the path of a file that is one.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.module = _load(address)
        _check_parts(address, self.module)
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
        return self._changed(self.call("runs", self.found(done, changes)), changes)

    def call(self, part: str, *arguments: Any) -> Any:
        """Returns what a function of the study returns.

        Raises:
            RuntimeError: if it raises, from its own error: it is to be mended there.
        """
        try:
            return getattr(self.module, part)(*arguments)
        except Exception as error:
            raise _error_in(f"{part}() of {self.address}", error) from error

    def found(
        self, done: Mapping[Any, Figures], changes: Mapping[str, Any]
    ) -> Mapping[Any, Figures]:
        """Returns the figures as the study looks for them, by settings of its own.

        Args:
            done: Figures by settings that have the changes.
            changes: Values of fields that all runs have instead of their own.
        """
        return _Found(done, lambda settings: self._changed([settings], changes)[0])

    def tiny(self, changes: Mapping[str, Any]) -> list:
        """Returns the settings of a few short runs."""
        return self._changed(self.call("tiny"), changes)

    def _changed(self, runs: Sequence, changes: Mapping[str, Any]) -> list:
        settings = [dataclasses.replace(run, **changes) for run in runs]
        return list(dict.fromkeys(map(self._typed, settings)))

    def _typed(self, settings):
        """Gives fields the types that are written, so that equal settings are one run.

        Raises:
            ValueError: if a value has another type, or a run has no thread.
        """
        values = {}
        for name, kind in self._types.items():
            try:
                values[name] = typed.fit(getattr(settings, name), kind)
            except TypeError as error:
                raise ValueError(
                    f"Settings of {self.name} must have the types that are written "
                    f"there. Received: {name}={getattr(settings, name)!r}, but "
                    f"{name}: {typed.name_of(kind)}. Mend the value or the type."
                ) from error
        _check_threads(values["threads"])
        return dataclasses.replace(settings, **values)

    def kind(self, settings: Any) -> str:
        """Returns the name of what takes about as long as this run."""
        return self.call("kind", settings) if hasattr(self.module, "kind") else "run"

    def to_json(self, settings: Any) -> dict[str, Any]:
        """Returns the settings as JSON has them."""
        return json.loads(json.dumps(dataclasses.asdict(settings)))

    def from_json(self, fields: Mapping[str, Any]) -> Any:
        """Returns the settings of `to_json`.

        Raises:
            ValueError: if a value has another type than its field.
        """
        return self._typed(self.module.Settings(**fields))

    def parse(self, change: str) -> tuple[str, Any]:
        """Returns the field and the value of a text such as `epochs=3`."""
        field, sign, value = change.partition("=")
        if not sign or field not in self._types:
            raise ValueError(
                f"--set must be FIELD=VALUE, with a field of {self.name}: "
                f"{', '.join(self._types)}. Received: {change}."
            )
        kind = self._types[field]
        try:
            value = typed.read(value, kind)
        except TypeError as error:
            raise ValueError(
                f"--set {field} must be of type {typed.name_of(kind)}. Received: "
                f"{change}. Numbers, true, null and lists are written as in JSON."
            ) from error
        if field == "threads":
            _check_threads(value)
        return field, value

    def digest(self, settings: Any) -> str:
        """Returns what tells this run of this version from all others."""
        known = [self.name, self.version, self.to_json(settings)]
        text = json.dumps(known, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_threads(threads):
    if threads < 1:  # TensorFlow would take all cores.
        raise ValueError(
            f"threads must be at least 1. Received: threads={threads}. Give the number "
            "of threads that a run may take."
        )


def _check_parts(address, module):
    missing = [part for part in PARTS if not hasattr(module, part)]
    if missing:
        raise ValueError(
            f"A study must have {', '.join(PARTS)}. Received: {address}, without "
            f"{' and '.join(missing)}. `studies/runner/study.py` says what each is."
        )
    made = module.Settings
    frozen = dataclasses.is_dataclass(made) and made.__dataclass_params__.frozen
    if not frozen or typing.get_type_hints(made).get("threads") is not int:
        raise ValueError(
            "Settings of a study must be a frozen dataclass with a field threads: int. "
            f"Received: that of {address}. `studies/runner/study.py` says what each is."
        )


def _error_in(place, error):
    remedy = "The lines above say where."
    if isinstance(error, ImportError):
        remedy = 'Install what studies need: pip install ".[studies]"'
    kind = type(error).__name__
    return RuntimeError(f"{place} must not raise. Received: {kind}: {error}. {remedy}")


def _load(address: str) -> ModuleType:
    path = Path(address).resolve()
    if not address.endswith(".py") and address not in names():
        raise ValueError(
            f"NAME must be a study: {', '.join(names())}, or the path of a file that "
            f"is one. Received: {address}."
        )
    if address.endswith(".py") and not path.is_file():
        raise ValueError(
            f"NAME must be a study, or a file that exists. Received: {address}."
        )
    try:
        if not address.endswith(".py"):
            return importlib.import_module(f"studies.{address}")
        # A dataclass looks its module up by name. It must hide no module of Python.
        name = f"study_in_file_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:
        raise _error_in(f"The import of {address}", error) from error
    return module
