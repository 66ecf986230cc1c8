"""The folder that an example writes."""

import shutil
from pathlib import Path


class Output:
    """The folder of a run: complete, or with a note in it of what is missing.

    Args:
        folder: Where it is.
        names: What the run writes into it.
        optional: What an earlier run with other options may have left there.
    """

    def __init__(self, folder, names, optional=()):
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
        for path in map(self.path, {*names, *optional}):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def path(self, name):
        """Where the file or folder `name` belongs."""
        return self.folder / name

    def done(self, name):
        """Notes that `name` is written."""
        self.missing.remove(name)
        self._say()

    def _say(self):
        if not self.missing:
            self.note.unlink()
            return
        self.note.write_text(
            "The run that writes this folder has not ended, or was broken off. Missing "
            f"or half written: {', '.join(self.missing)}. Run it again.\n"
        )
