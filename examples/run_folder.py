"""The folder that an example writes."""

import shutil
from collections.abc import Iterable
from pathlib import Path


class Output:
    """The folder of a run. Until it is complete, a note in it says what is missing.

    Args:
        folder: Path of the folder. It is made if need be.
        names: Files and folders that the run writes into it.
        optional: Those that a run with other options writes. They are removed if an
            earlier run left them there, so that all files belong to one run.
    """

    def __init__(
        self, folder: str | Path, names: Iterable[str], optional: Iterable[str] = ()
    ) -> None:
        self.folder = Path(folder)
        self.names = list(names)
        self.missing = list(names)
        self.note = self.folder / "INCOMPLETE.txt"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._say()
        except OSError as error:
            raise SystemExit(
                "--out must be a folder that can be written. Received: "
                f"{self.folder}, which fails with {type(error).__name__}: "
                f"{error.strerror}. Give another one."
            ) from error
        for path in map(self.path, {*self.names, *optional}):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        """Returns where the file or folder `name` belongs."""
        return self.folder / name

    def done(self, name: str) -> None:
        """Notes that `name` is written."""
        self.missing.remove(name)
        self._say()

    def _say(self) -> None:
        if not self.missing:
            self.note.unlink()
            return
        self.note.write_text(
            "The run that writes this folder has not ended, or was broken off. Missing "
            f"or half written: {', '.join(self.missing)}. Run it again.\n"
        )
