"""The folder that keeps the runs of a study: one JSON file for each."""

import contextlib
import fcntl
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from studies.runner.execute import Outcome
from studies.runner.study import Done, Study

DAMAGED = ".damaged"
LOCK = ".lock"


class Results:
    """The runs of a study that are finished, by their settings.

    Args:
        study: The study.
        folder: Its folder of results. The runs are in `runs` there.
        say: What takes a line about each file that is set aside. None: a damaged file
            is an error, and stays where it is.

    Raises:
        ValueError: if a file belongs to another study, or to another version of it.
    """

    def __init__(
        self, study: Study, folder: Path, say: Callable[[str], object] | None = print
    ) -> None:
        self._study, self.folder = study, folder
        self._say = say
        self.done: Done = {}
        self.failed: dict[Any, Outcome] = {}
        self.seconds: dict[Any, float] = {}
        for path in sorted((folder / "runs").glob("*.json")):
            self._read(path)

    def _read(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text())
            owner = content["study"], content["version"], {*content["settings"]}
            fields, outcome = content["settings"], content["outcome"]
            _check_outcome(outcome)
        except (ValueError, KeyError, TypeError):
            self._set_aside(path)
            return
        self._check_owner(path, *owner)
        try:
            settings = self._study.from_json(fields)
        except (ValueError, TypeError):
            self._set_aside(path)
            return
        if path.stem == self._study.digest(settings):
            self._keep(settings, outcome)
        else:
            self._set_aside(path)

    def _check_owner(self, path, name, version, fields):
        study = self._study
        if (name, version, fields) == (study.name, study.version, study.fields):
            return
        what = f"a run of {name}, version {version}"
        if (name, version) == (study.name, study.version):
            what = f"a run with the settings {', '.join(sorted(fields))}"
        raise ValueError(
            f"--results must be a folder of {study.name}, version {study.version}, "
            f"with the settings {', '.join(sorted(study.fields))}. Received: {path}, "
            f"{what}. Name another folder, or move these runs away."
        )

    def _set_aside(self, path):
        if self._say is None:
            raise ValueError(
                f"{path} must be a whole run under its own name. It is damaged, or "
                "has another's name: restore it, or run the study again."
            )
        others = (path.with_suffix(f"{DAMAGED}.{i}") for i in itertools.count(2))
        aside = path.with_suffix(DAMAGED)
        while aside.exists():
            aside = next(others)
        os.replace(path, aside)
        self._say(
            f"{path} is damaged, or has another's name. It is now {aside.name}, and no "
            "run."
        )

    def _keep(self, settings, outcome):
        self.failed.pop(settings, None)
        if "figures" in outcome:
            self.done[settings] = outcome["figures"]
            # Those of a run that failed say nothing of how long one takes.
            if "seconds" in outcome:
                self.seconds[settings] = outcome["seconds"]
        else:
            self.failed[settings] = outcome

    def add(self, settings: Any, outcome: Outcome) -> None:
        """Writes what came of a run, as a whole or not at all.

        Raises:
            OSError: if it can't be written. The message has what was to be written.
        """
        content = {
            "study": self._study.name,
            "version": self._study.version,
            "settings": self._study.to_json(settings),
            "outcome": outcome,
        }
        path = self.folder / "runs" / f"{self._study.digest(settings)}.json"
        lines = (f"{json.dumps(key)}: {json.dumps(content[key])}" for key in content)
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text)
        except OSError as error:
            raise OSError(
                f"--results must be a folder that can be written to. Received: "
                f"{self.folder}, which fails with: {error.strerror or error}. Make "
                "room there, and start again: runs that are finished are not repeated. "
                f"To keep this one too, put the next lines into {path}:\n{text}"
            ) from error
        self._keep(settings, outcome)

    def of(self, runs: Iterable[Any]) -> Done:
        """Returns the figures of those of these runs that are finished, in order."""
        return {
            settings: self.done[settings] for settings in runs if settings in self.done
        }


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other processes from running a study into the same folder.

    Raises:
        OSError: if the folder can't be written to, before any run is lost by that.
        ValueError: if another process runs a study into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise OSError(
            "--results must be a folder that can be written to. Received: "
            f"{folder}, which fails with: {error.strerror}. Name another folder."
        ) from error
    with open(handle) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                "--results must be a folder into which no other process runs a study. "
                f"Received: {folder}, where one does. Wait for it, or name another."
            ) from error
        yield


def _check_outcome(outcome):
    """Raises ValueError or KeyError if it is not what `execute` returns."""
    if "error" in outcome:
        whole = all(isinstance(outcome[name], str) for name in ("error", "traceback"))
    else:
        whole = isinstance(outcome["figures"], dict)
    if not (whole and isinstance(outcome.get("seconds", 0.0), int | float)):
        raise ValueError("It has neither figures nor an error.")


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is either what it was or whole.

    Raises:
        OSError: if it can't be written, with its name.
    """
    try:
        handle, temporary = tempfile.mkstemp(".tmp", ".", path.parent)
        try:
            with open(handle, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        # A full disk does not name the file.
        raise OSError(error.errno, error.strerror, str(path)) from error
