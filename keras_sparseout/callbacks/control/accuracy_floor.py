"""Keeps the accuracy while a controller pushes: looks at it, aims lower, restores."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_sparseout.callbacks.control import floor_messages, floor_search
from keras_sparseout.callbacks.control.accuracy_limits import (
    AccuracyLimits,
    MinMetric,
    Score,
)
from keras_sparseout.callbacks.control.floor_search import Judged
from keras_sparseout.callbacks.control.messages import ControllerMessages
from keras_sparseout.callbacks.progress import is_resumed

# From this part of the run on, the aims don't rise again after a break.
_LATE = 0.75
# Figures rise to higher aims in this part of an epoch, and are held in the rest.
_RISING = 0.75
# The aims take at least so many epochs to the targets.
_LEAST_STEPS = 4
# A target counts as reached with an error of this size.
_REACHED = 0.02


class _Epoch(NamedTuple):
    """An epoch: its number, what its logs say, whether it kept the floor then."""

    number: int
    score: Score
    kept: bool
    figures: np.ndarray

    @property
    def numbers(self) -> list[float]:
        """All of it as numbers."""
        return [self.number, *self.score, self.kept, *self.figures]

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "_Epoch":
        """Returns the epoch of these `numbers`."""
        number, metric, loss, kept, *figures = map(float, numbers)
        score = Score(metric, loss)
        return cls(int(number), score, bool(kept), np.array(figures))


class Outcome(NamedTuple):
    """What an epoch came to, in a group of layers.

    Attributes:
        subject: What is controlled, for example "hoyer of hidden".
        target: The figure asked for.
        figure: The figure.
    """

    subject: str
    target: float
    figure: float


class AccuracyFloor:
    """Decides after each epoch how far a controller may push, by what the logs say.

    The floor is kept in an epoch that is within the limits, as `AccuracyLimits` says.
    Nothing is moved until an epoch kept it. So it is known what the model comes to
    without a push, and a model that has yet to learn is not held back. From then on the
    aims rise to the targets in `reach_by` of the epochs that are left. After an epoch
    that broke the floor they are found by bisection, as `floor_search.next_aims` says.

    Args:
        model: The model that is trained.
        limits: What an epoch must keep.
        epochs: How many epochs the run has; None if that is unknown.
        reach_by: Part of the epochs left in which the aims come to the targets.
        messages: What the controller says.

    Attributes:
        aims: The figures to aim at, a vector; None until an epoch kept the floor.
        ramp: Part of the batches that are left in which the figures rise to the aims.
        new_ramp: Whether that begins with the next epoch.
        judges_averages: Whether the last figures were of averages of the weights.
    """

    def __init__(
        self,
        model: keras.Model,
        limits: AccuracyLimits,
        epochs: int | None,
        reach_by: float,
        messages: ControllerMessages,
    ) -> None:
        self._model = model
        self._limits = limits
        self._run_epochs = epochs
        self._reach_by = reach_by
        self._messages = messages
        self._epochs: list[_Epoch] = []
        self._targets = np.zeros(0)
        # The number of an epoch that kept the floor, its weights, and its control.
        self._held: _Epoch | None = None
        self._held_weights: list[np.ndarray] = []
        self._held_control: list[np.ndarray] = []
        self._held_averaged = False
        self.aims: np.ndarray | None = None
        self.ramp, self.new_ramp = 0.0, False
        self.judges_averages = False

    @property
    def waits(self) -> bool:
        """Whether no epoch has kept the floor yet, so that nothing is pushed."""
        return not any(epoch.kept for epoch in self._epochs)

    @property
    def by_steps(self) -> bool:
        """Whether the aims went to the targets by steps alone, and began in time."""
        if self.waits or self._begun_late:
            return False
        return all(epoch.kept for epoch in self._pushed)

    def check_epochs(self, first: int) -> None:
        """Raises if the run, from the epoch of index `first` on, has only one epoch.

        Where that is the last epoch of a resumed run, it only warns.
        """
        if self._run_epochs is None or self._run_epochs - first > 1:
            return
        if is_resumed(self._model, first):
            floor_messages.warn_of_last_epoch(self._messages)
            return
        received, least, several = f"epochs={self._run_epochs}", "2", f"{first + 8}"
        if first:
            received += f", initial_epoch={first}"
            least = "`initial_epoch` + 2"
        raise ValueError(
            f"`epochs` must be at least {least} with a floor of accuracy, as the first "
            f"epoch of a run is not pushed. Received: {received} with "
            f"{self._limits.given}. Give several epochs of fewer steps: fit(..., "
            f"epochs={several}, steps_per_epoch=50)."
        )

    def end_epoch(
        self,
        epoch: int,
        logs: Mapping[str, Any],
        outcomes: Sequence[Outcome],
        control: Sequence[np.ndarray] = (),
        validated: Sequence[np.ndarray] = (),
    ) -> None:
        """Takes in what an epoch came to, and sets the aims of the next one.

        Args:
            epoch: Number of the epoch, from 0.
            logs: Keras' logs of the epoch. If they have no validation, it does not
                count.
            outcomes: What each group came to.
            control: Numbers of the control in the step, which belong to the weights.
            validated: The weights that the validation saw, if they are not those of the
                model now: averages that another callback put in. They are held if the
                limits are of the validation.

        Raises:
            ValueError: if the logs of the first epoch do not have what is asked for. An
                epoch without validation is not the first one, while there is another
                before the last.
        """
        epochs, first = self._run_epochs, not self._epochs
        may_wait = epochs is not None and epoch + 2 < epochs
        score = self._limits.score(logs, first=first, may_wait=may_wait)
        if score is None:
            if first:
                floor_messages.warn_of_no_validation(self._messages, self._limits.given)
            return
        self._targets = np.array([outcome.target for outcome in outcomes])
        known = np.array([outcome.figure for outcome in outcomes])
        instead = self._targets if self.aims is None else self.aims
        known = np.where(np.isfinite(known), known, instead)
        kept = self._limits.keeps(score, [*self._scores, score])
        self._epochs.append(_Epoch(epoch, score, kept, known))
        # Figures of training are of the model's own weights.
        judged = validated if self._limits.all_by_validation else ()
        self.judges_averages = len(judged) > 0
        self._hold(control, judged)
        self._aim()

    def restore(self) -> tuple[np.ndarray, list[np.ndarray]] | None:
        """Gives the model the weights of the sparsest epoch that kept the floor.

        Only if the last epoch broke it.

        Returns:
            The figures and the numbers of the control of that epoch. None if the model
            was left alone.
        """
        if self._held is None or self._epochs[-1].kept:
            return None
        self._model.set_weights(self._held_weights)
        why = self._why(self._epochs[-1])
        number, averaged = self._held.number + 1, self._held_averaged
        floor_messages.say_restored(self._messages, number, why, averaged)
        return self._held.figures, self._held_control

    def conclude(self, outcomes: Sequence[Outcome]) -> None:
        """Says what the floor cost, if it did, where groups came to `outcomes`."""
        if not self._epochs:
            return
        if self.waits:
            asked, best = self._limits.asked, self._limits.best(self._scores)
            floor_messages.warn_of_no_epoch(self._messages, asked, best)
            return
        pushed = self._pushed
        broken = [epoch for epoch in pushed if not epoch.kept]
        for i, (subject, target, figure) in enumerate(outcomes):
            start = pushed[0].figures[i]
            way = np.sign(target - start)
            if not way * (target - figure) > _REACHED:
                continue
            shown = self._messages, subject, figure, target
            if broken:
                gaps = [abs(epoch.figures[i] - figure) for epoch in broken]
                why = self._why(broken[int(np.argmin(gaps))])
                floor_messages.say_stopped(*shown, why)
            if self._begun_late:
                floor_messages.say_begun_late(*shown, pushed[0].number + 1)

    def numbers(self) -> list[np.ndarray]:
        """Returns all that a resumed run needs."""
        held = -1
        if self._held is not None:
            held = [e.number for e in self._epochs].index(self._held.number)
        head = [held, self.ramp, self.new_ramp, self._limits.by_validation]
        rows = np.array([epoch.numbers for epoch in self._epochs])
        aims = np.zeros(0) if self.aims is None else self.aims
        parts = [np.array(head, "float64"), rows, self._targets, aims]
        return [*parts, *self._held_control]

    @property
    def held_weights(self) -> list[np.ndarray]:
        """The weights that it may restore, which a resumed run needs too."""
        return self._held_weights

    def resume(
        self, numbers: Sequence[np.ndarray], held_weights: Sequence[np.ndarray] = ()
    ) -> None:
        """Goes on from the `numbers` and `held_weights` of an earlier run.

        Without `held_weights` it can't restore the weights of an epoch before.
        """
        head, rows, self._targets, aims, *control = numbers
        held, self.ramp, new_ramp, by_validation = map(float, head)
        self._epochs = [_Epoch.of(row) for row in rows]
        can_hold = held >= 0 and len(held_weights)
        self._held = self._epochs[int(held)] if can_hold else None
        self.new_ramp = bool(new_ramp)
        self._limits.resume(bool(by_validation))
        self.aims = np.array(aims) if len(aims) else None
        self._held_control, self._held_weights = control, list(held_weights)

    @property
    def _scores(self) -> list[Score]:
        return [epoch.score for epoch in self._epochs]

    @property
    def _pushed(self) -> list[_Epoch]:
        """The epochs from the first that kept the floor on, itself not pushed."""
        kept = [epoch.kept for epoch in self._epochs]
        return self._epochs[kept.index(True) :]

    @property
    def _begun_late(self) -> bool:
        return len(self._pushed) < len(self._epochs) / 2

    def _why(self, epoch: _Epoch) -> str:
        """Says why an epoch broke the floor."""
        before = [e.score for e in self._epochs if e.number <= epoch.number]
        return self._limits.why_not(epoch.score, before)

    def _missing(self, figures: np.ndarray) -> float:
        start = self._pushed[0].figures
        return floor_search.missing(figures, start, self._targets)

    def _hold(
        self, control: Sequence[np.ndarray], validated: Sequence[np.ndarray]
    ) -> None:
        """Keeps the weights of the sparsest epoch that keeps the floor."""
        held, last = self._held, self._epochs[-1]
        # The lowest loss may have fallen since.
        if held is not None and not self._limits.keeps(held.score, self._scores):
            self._held, self._held_weights, self._held_control = None, [], []
        if not last.kept:
            return
        held = self._held
        if held is None or self._missing(last.figures) <= self._missing(held.figures):
            self._held, self._held_control = last, list(control)
            self._held_averaged = len(validated) > 0
            self._held_weights = list(validated) or self._model.get_weights()

    def _aim(self) -> None:
        """Sets the aims of the next epoch."""
        if self.waits:
            return
        first, last = self._pushed[0], self._epochs[-1]
        before = first.figures if self.aims is None else self.aims
        steps, left, late = 0, _LEAST_STEPS, False
        if self._run_epochs is not None:
            steps = round(self._reach_by * (self._run_epochs - first.number - 1))
            left = self._run_epochs - last.number - 1
            begin = self._epochs[0].number
            late = last.number + 1 - begin >= _LATE * (self._run_epochs - begin)
        judged = [Judged(epoch.figures, epoch.kept) for epoch in self._pushed]
        self.aims = floor_search.next_aims(
            judged, before, self._targets, step=1 / max(steps, _LEAST_STEPS), late=late
        )
        risen = self._missing(before) - self._missing(self.aims)
        self.new_ramp = risen > 0
        if risen:
            self.ramp = _RISING / max(left, 1) if self.new_ramp else 0.0


def prepared(
    model: keras.Model,
    min_metric: MinMetric | None,
    max_loss_increase: float | None,
    epochs: int | None,
    reach_by: float,
    messages: ControllerMessages,
) -> AccuracyFloor | None:
    """Returns an `AccuracyFloor` for a controller's arguments; None if it asks none."""
    if min_metric is None and max_loss_increase is None:
        return None
    limits = AccuracyLimits(model, min_metric, max_loss_increase)
    return AccuracyFloor(model, limits, epochs, reach_by, messages)
