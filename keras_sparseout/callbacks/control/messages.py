"""What a SparsityController says: the lines that it prints, and its warnings."""

import warnings
from collections.abc import Iterable, Mapping, Sequence

from keras_sparseout.utils import validation


class ControllerMessages:
    """Prints lines, and gives warnings, each of them once a run.

    Args:
        verbose: Whether to print.

    Attributes:
        verbose: The argument, which may change.
    """

    def __init__(self, verbose: bool | int = True) -> None:
        self.verbose = verbose
        self._printed: set[str] = set()
        self._warned: set[tuple[str, str]] = set()

    def controlled(
        self,
        metric: str,
        targets: Mapping[str, float],
        actuator: str,
        bounds: tuple[float, float],
    ) -> None:
        """Prints what is controlled."""
        names: dict[float, list[str]] = {}
        for name, target in targets.items():
            names.setdefault(target, []).append(name)
        wanted = ", ".join(
            f"{validation.some_of(layers)} to {target:g}"
            for target, layers in names.items()
        )
        self.print(f"{metric} of {wanted}, by {actuator} in {_range(bounds)}")

    def left_out(self, reasons: Mapping[str, str]) -> None:
        """Prints which layers can't be read, and why not."""
        names = [f"{name} ({reason})" for name, reason in reasons.items()]
        self.print(f"left out: {validation.some_of(names)}")

    def found(
        self,
        subject: str,
        *,
        figure: float,
        target: float,
        actuator: str,
        setting: float,
        mean: float,
        calls: Sequence[str],
    ) -> None:
        """Prints what the run came to, with the calls that repeat it, if there are any.

        Args:
            subject: What was controlled, for example "hoyer of hidden".
            figure: The last figure.
            target: The target.
            actuator: What was moved.
            setting: The last setting.
            mean: The mean setting of the run.
            calls: Calls of the layers, with a constant setting.
        """
        repeat = f". To repeat it fixed: {', '.join(calls)}" if calls else ""
        self.print(
            f"{subject} is {figure:.3f}, asked for {target:g}, at {actuator} = "
            f"{setting:.3g}, over the run {mean:.3g}{repeat}"
        )

    def setting_moved(self, actuator: str) -> None:
        """Prints that no constant setting is known to give the same."""
        self.print(
            f"{actuator} moved during the training, so no fixed {actuator} is known to "
            "repeat it"
        )

    def too_few_readings(
        self, subject: str, target: float, readings: int, every: int
    ) -> None:
        """Prints that the run had too few readings to reach the target."""
        remedy = "Give more epochs" + (", or every=1" if every > 1 else "")
        self.print(
            f"the run has {readings} readings, which were too few to bring {subject} "
            f"to {target:g}. {remedy}"
        )

    def frozen_early(self, subject: str, target: float) -> None:
        """Prints that the setting was frozen before the target was reached."""
        self.print(
            f"`freeze_after` held the setting before {subject} came to {target:g}. "
            "Give a larger one, or leave it out"
        )

    def at_bound(
        self, subject: str, target: float, actuator: str, bound: float
    ) -> None:
        """Prints that the setting is at a bound while the target is not reached."""
        self.print(
            f"{actuator} is at its bound {bound:g}, and {subject} is not at {target:g}"
        )

    def loss_not_finite(self, loss: float) -> None:
        """Warns that the loss is not finite."""
        self.warn(
            f"the loss is {loss}: the settings stay what they are. Lower the learning "
            "rate, or ask for less",
            about=("loss", ""),
        )

    def nan_activations(self, layers: Iterable[str]) -> None:
        """Warns of layers with NaN among their activations."""
        for name in layers:
            self.warn(
                f"the activations of {name} contain NaN, so its setting stays",
                about=("layer", name),
            )

    def broken(self, causes: Mapping[str, str], *, quiet: bool) -> None:
        """Warns of layers whose figures mean nothing, unless it was said before.

        Args:
            causes: Dict of causes by layer.
            quiet: Whether to note it only, since the user knows of the loss.
        """
        new = [name for name in causes if ("layer", name) not in self._warned]
        self._warned.update(("layer", name) for name in new)
        for cause in dict.fromkeys(causes[name] for name in new):
            layers = [name for name in new if causes[name] == cause]
            names = validation.some_of(layers)
            stay = f"setting of {names} stays"
            if len(layers) > 1:
                stay = f"settings of {names} stay"
            if not quiet:
                self.warn(f"{cause}, so the {stay}", about=(cause, names))

    def dead_units(
        self, subject: str, layer: str, share: float, max_dead: float
    ) -> None:
        """Warns that too many units of `layer` are dead."""
        self.warn(
            f"{share:.0%} of the units of {layer} are dead, so the controller no "
            "longer makes it sparser. Ask for less, or raise `max_dead`, now "
            f"{max_dead:g}",
            about=("dead units", f"{subject} {layer}"),
        )

    def retreat(self, subject: str, actuator: str, bounds: tuple[float, float]) -> None:
        """Warns that the setting came back within `bounds`."""
        self.warn(
            f"Above {bounds[1]:g}, {actuator} moved {subject} away from its target. "
            f"From now on {actuator} stays in {_range(bounds)}. Give narrower `bounds` "
            "to keep it from there",
            about=("retreat", subject),
        )

    def wrong_way(self, subject: str, actuator: str) -> None:
        """Warns that the actuator moves the metric away from its target."""
        self.warn(
            f"{actuator} moves {subject} the wrong way here, so it goes back to where "
            "it began. Choose another `metric` or `actuator`",
            about=("wrong way", subject),
        )

    def out_of_reach(
        self,
        subject: str,
        target: float,
        actuator: str,
        bounds: tuple[float, float],
        reached: tuple[float, float],
    ) -> None:
        """Warns that the target can't be reached, with the figures that were."""
        figures = " to ".join(dict.fromkeys(f"{figure:.3f}" for figure in reached))
        self.warn(
            f"{subject} can't be brought to {target:g} with {actuator} in "
            f"{_range(bounds)}: it reached {figures}. Widen `bounds`, or change the "
            "target",
            about=("reach", subject),
        )

    def print(self, text: str) -> None:
        """Prints a line, unless it was printed before."""
        if self.verbose and text not in self._printed:
            self._printed.add(text)
            print(f"SparsityController: {text}")

    def warn(self, text: str, *, about: tuple[str, str]) -> None:
        """Gives a warning, unless there was one about the same.

        Args:
            text: What it says.
            about: What it is about, in two words of the caller.
        """
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(f"SparsityController: {text}.", stacklevel=4)


def _range(bounds: tuple[float, float]) -> str:
    low, high = bounds
    return f"[{low:g}, {high:g}]"
