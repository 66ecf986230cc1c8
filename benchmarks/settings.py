"""What a run was asked to do."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
OTHER = ", other"  # After the names of what another checkout takes.


@dataclass(frozen=True)
class Settings:
    """The options of the command."""

    rounds: int | None = None  # None for what each suite takes.
    quick: bool = False
    elements: int = 8 * 2**20
    against: Path | None = None
    release: Path | None = None
    peers: bool = True
    clock: str = "cpu"  # The field of Spent that suite op compares.

    def rounds_or(self, usual: int) -> int:
        """Returns the number of rounds for a suite that usually takes `usual`."""
        return self.rounds or (2 if self.quick else usual)
