"""The state of a control in a file, for a resumed run: that which no layer has."""

import contextlib
import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np

from keras_sparseout.callbacks.control.messages import ControllerMessages
from keras_sparseout.callbacks.progress import Progress
from keras_sparseout.utils.types import PathLike

FILE_NAME = "sparsity_controller.npz"
# Which keys and numbers the file has.
_FORMAT = 3
# BackupAndRestore may have saved the weights after this epoch, or after that before.
_EPOCHS = 2
# What NumPy and json raise where a file is broken.
_UNREADABLE = (
    AttributeError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)


class Resumable(Protocol):
    """What a `RunBackup` saves."""

    def identity(self) -> dict[str, Any]:
        """Returns what must be the same in a run that resumes."""

    def state(self) -> dict[str, Any]:
        """Returns all that a resumed run needs, made of numbers, lists and dicts."""

    def weights(self) -> list[np.ndarray]:
        """Returns weights of the model that it may restore."""

    def resume(self, state: Mapping[str, Any], weights: Sequence[np.ndarray]) -> None:
        """Goes on from a `state`; raises KeyError, TypeError or ValueError first."""


class _Saved(NamedTuple):
    """What is known after an epoch."""

    state: dict[str, Any]
    weights: list[np.ndarray]


def check_folder(backup_dir: PathLike | None) -> pathlib.Path | None:
    """Returns `backup_dir` as a path; raises unless it is a local folder, or None."""
    if backup_dir is None:
        return None
    path: Any = backup_dir
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "://" in text or os.path.isfile(text):
        raise ValueError(
            "`backup_dir` must be a folder of this machine. Received: "
            f"backup_dir={backup_dir!r}. Give that of "
            'keras.callbacks.BackupAndRestore, for example "backup".'
        )
    return pathlib.Path(text)


def backups_of_weights(
    in_list: Sequence[keras.callbacks.Callback],
) -> list[keras.callbacks.BackupAndRestore]:
    """Returns the callbacks in the list that save the weights of a run."""
    return [c for c in in_list if isinstance(c, keras.callbacks.BackupAndRestore)]


class RunBackup:
    """Saves the state at the end of each epoch, and resumes it.

    The file holds the states after the last two epochs. So the one is there with whose
    weights `keras.callbacks.BackupAndRestore` resumes, whether that saves before this
    or after.

    Args:
        folder: The folder of the file; None to save nothing.
        callback: The callback whose state it is.
        progress: Its `Progress`, which goes on too.
        messages: What that says.
    """

    def __init__(
        self,
        folder: pathlib.Path | None,
        callback: keras.callbacks.Callback,
        progress: Progress,
        messages: ControllerMessages,
    ) -> None:
        self._folder = folder
        self._callback = callback
        self._progress = progress
        self._messages = messages
        self._saved: dict[str, _Saved] = {}
        self._begun = False

    @property
    def _path(self) -> pathlib.Path:
        return (self._folder or pathlib.Path()) / FILE_NAME

    @property
    def has_file(self) -> bool:
        """Whether it saves anything."""
        return self._folder is not None

    def check_list(
        self, in_list: Sequence[keras.callbacks.Callback], part: str = ""
    ) -> None:
        """Raises if two callbacks share the folder; warns if one is missing.

        Args:
            in_list: The callbacks in the list.
            part: What of the controller the file would have, if not all.
        """
        if self._folder is None:
            if backups_of_weights(in_list):
                self._messages.warn(
                    f"BackupAndRestore saves nothing of this controller{part}, which "
                    "would begin anew in a resumed run. Give backup_dir=, the folder "
                    "of BackupAndRestore",
                    about=("backup", "missing"),
                )
            return
        kind = type(self._callback)
        others = [c for c in in_list if isinstance(c, kind) and c is not self._callback]
        if any(getattr(c, "backup_dir", None) == self._folder for c in others):
            raise ValueError(
                "`backup_dir` must be another folder for each callback of this kind. "
                f"Received: backup_dir={str(self._folder)!r} twice. Give a folder in "
                f"it, for example {str(self._folder / 'second')!r}."
            )

    def begin_epoch(self, epoch: int, resumable: Resumable) -> None:
        """In the first epoch of a run, resumes what the file has of it.

        Raises:
            ValueError: if the file is broken, or of another control.
        """
        if self._begun:
            return
        self._begun, self._saved = True, {}
        if self._folder is None or not self._path.exists():
            return
        saved = self._read(resumable.identity())
        if str(epoch) not in saved:
            known = ", ".join(saved)
            self._messages.warn(
                f"it begins anew, as {str(self._path)!r} has its states at the "
                f"beginning of the epochs {known}, and this run begins with epoch "
                f"{epoch}. Put BackupAndRestore into `callbacks` behind it, or delete "
                "the file",
                about=("backup", "epoch"),
            )
            return
        state, weights = saved[str(epoch)]
        try:
            first, batches, epochs = map(int, state["run"])
            resumable.resume(state, weights)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._broken(error) from error
        self._progress.resume(first, batches, epochs)
        self._saved = {str(epoch): saved[str(epoch)]}

    def end_epoch(self, epoch: int, resumable: Resumable) -> None:
        """Saves the state after an epoch."""
        if self._folder is None:
            return
        state = {**resumable.state(), "run": self._progress.after_epoch}
        now = _Saved(state, resumable.weights())
        saved = {**self._saved, str(epoch + 1): now}
        self._saved = dict(list(saved.items())[-_EPOCHS:])
        self._folder.mkdir(parents=True, exist_ok=True)
        _write(self._path, resumable.identity(), self._saved)

    def end_run(self, in_list: Sequence[keras.callbacks.Callback]) -> None:
        """Removes the file, unless the backup of the weights is kept too."""
        backups = backups_of_weights(in_list)
        if self._folder is None or any(not c.delete_checkpoint for c in backups):
            return
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # Others may have files there.
            self._folder.rmdir()

    def _read(self, identity: Mapping[str, Any]) -> dict[str, _Saved]:
        """Returns what the file has, by epoch."""
        try:
            with open(self._path, "rb") as file, np.load(file) as arrays:
                content = json.loads(arrays["content"].tobytes())
                if content["format"] != _FORMAT:
                    raise ValueError(f"its format is {content['format']!r}")
                control = dict(content["control"])
                saved = {
                    epoch: _Saved(state, [arrays[name] for name in names])
                    for epoch, (state, names) in content["epochs"].items()
                }
        except _UNREADABLE as error:
            raise self._broken(error) from error
        # As a file has it: tuples are lists.
        now = json.loads(json.dumps(identity))
        for key in now:
            if control.get(key) != now[key]:
                raise ValueError(
                    "`backup_dir` must hold the state of a run that this one goes on "
                    f"with. Received: backup_dir={str(self._folder)!r}, of a run with "
                    f"{key}={control.get(key)!r}, where this one has {now[key]!r}. "
                    f"Give the same, or delete {str(self._path)!r} to begin anew."
                )
        return saved

    def _broken(self, error: Exception) -> ValueError:
        return ValueError(
            "`backup_dir` must hold a state that can be read. Received: backup_dir="
            f"{str(self._folder)!r}, whose file {str(self._path)!r} is broken "
            f"({type(error).__name__}: {error}). Delete it to begin anew."
        )


def _write(
    path: pathlib.Path, identity: Mapping[str, Any], saved: Mapping[str, _Saved]
) -> None:
    """Writes a file at once: a crash leaves the old one, or the new one."""
    # Both epochs may have the same weights: these are stored once.
    every = {id(w): w for _, weights in saved.values() for w in weights}
    names = {key: f"weights_{i}" for i, key in enumerate(every)}
    arrays: dict[str, Any] = {names[key]: _storable(w) for key, w in every.items()}
    epochs = {
        epoch: (state, [names[id(w)] for w in weights])
        for epoch, (state, weights) in saved.items()
    }
    content = {"format": _FORMAT, "control": identity, "epochs": epochs}
    text = np.frombuffer(json.dumps(content).encode(), "uint8")
    number, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with open(number, "wb") as file:
            np.savez(file, content=text, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _storable(array: np.ndarray) -> np.ndarray:
    """Returns an array of a type that NumPy has: bfloat16 is none."""
    return array.astype("float32") if array.dtype.kind == "V" else array
