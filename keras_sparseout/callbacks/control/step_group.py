"""The layers that one control inside the training step moves together."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from keras_sparseout.callbacks.control import step_messages
from keras_sparseout.callbacks.control.accuracy_floor import Outcome
from keras_sparseout.callbacks.control.actuators import setting_key
from keras_sparseout.callbacks.control.control_settings import ControlSettings
from keras_sparseout.callbacks.control.messages import ControllerMessages
from keras_sparseout.callbacks.control.run_length import ANY_TIME, ReadingTime
from keras_sparseout.callbacks.control.step_control import StepControl
from keras_sparseout.callbacks.control.step_law import State
from keras_sparseout.callbacks.control.step_messages import Shortfall
from keras_sparseout.measure.watched_layer import WatchedLayer

# The largest error with which a target counts as reached.
_REACHED = 0.02
# More than this is no gap between training and inference, but something broken.
_LARGEST_GAP = 0.1
# After so many readings at the bound, with an error that stays, that is worth a line.
_AT_BOUND = 32
# A push of so much of the loss's own moves a figure, if it can. Below, the loss itself
# may be what makes a layer denser.
_FELT_PUSH = 1.0
# After so many readings in which it moved it the wrong way, a penalty is stopped.
_WRONG_READINGS = 8
# Fewer batches are too few for most targets.
_FEW_BATCHES = 100


class StepGroup:
    """One layer, or all together: what the control is told, and what it came to.

    It has the methods of `ControlledGroup`. Here they only tell the control in the step
    what to do, and read what it did.

    Args:
        watched: The layers.
        target: The figure asked for.
        settings: What all groups share.
        messages: What the controller says.
        control: The control of all groups.
        before: The groups that were there before some layers were left out. It goes on
            from the one of its own layers.
    """

    def __init__(
        self,
        watched: Sequence[WatchedLayer],
        target: float,
        settings: ControlSettings,
        messages: ControllerMessages,
        control: StepControl,
        before: Sequence["StepGroup"] = (),
    ) -> None:
        self._watched = watched
        self._target = target
        self._settings = settings
        self._messages = messages
        self._control = control
        self._index = control.group_of(watched[0].name)
        self._subject = settings.subject(watched)
        self._figure = math.nan
        self._readings_at_bound = self._readings_wrong = 0
        self._level_at_bound = math.nan
        self._stays_at_bound = False
        self._is_wrong = self._frozen = False
        self._aim, self._offset = target, 0.0
        own = [g for g in before if g._control is control and g._index == self._index]
        if own:
            self._succeed(own[0])
        else:
            # An earlier run may have ended frozen or blocked.
            self._tell(setpoint=target, frozen=0.0, blocked=0.0)

    @property
    def layers(self) -> list[str]:
        """The names of the layers."""
        return [w.name for w in self._watched]

    @property
    def came_to(self) -> Outcome:
        """What the last epoch came to."""
        return Outcome(self._subject, self._target, self._figure)

    @property
    def started(self) -> bool:
        """Whether the control has had a batch."""
        return self._own_state().batches > 0

    def values(self) -> dict[str, float]:
        """Returns the settings of the layers by log key."""
        key, values = setting_key(self._settings.actuator), self._control.values()
        return {f"{key}/{w.name}": values[w.name] for w in self._watched}

    def take(
        self,
        figures: Mapping[str, float],
        dead_shares: Mapping[str, float],
        time: ReadingTime = ANY_TIME,
    ) -> None:
        """Looks at a reading: at dead units, and whether the target is out of reach."""
        self._check_dead(dead_shares)
        state = self._own_state()
        error = self._error(state)
        at_top = state.output >= self._control.law.high and error > _REACHED
        if at_top and not self._readings_at_bound:
            self._level_at_bound = state.level
        self._readings_at_bound = self._readings_at_bound + 1 if at_top else 0
        self._check_direction(error, state)

    def shift_setpoint(self, figures: Mapping[str, float]) -> None:
        """Moves the setpoint by the gap to `figures` of probe data."""
        gap = self._own_state().level - self._settings.figure(
            "val_", figures, self._watched
        )
        # A layer that gives the zeros itself has a gap of its own only at the end of
        # the ramp: before, more may be zero by themselves.
        climbs = self._own_state().batches < self._control.plan.ramp[self._index]
        if math.isfinite(gap) and not (climbs and self._control.law.feedforward):
            share = 0.25 if self._control.law.feedforward else 0.5
            offset = self._offset + (gap - self._offset) * share
            self._offset = float(np.clip(offset, -_LARGEST_GAP, _LARGEST_GAP))
            self._tell(setpoint=self._aim + self._offset)

    def aim_at(self, figure: float) -> None:
        """Goes to `figure` instead of the target."""
        self._aim = figure
        self._tell(setpoint=figure + self._offset)

    def restored(self, figure: float) -> None:
        """Takes in that the layers have earlier weights again, with this figure."""
        self._figure = figure

    def hold(self, held: bool) -> None:
        """Leaves the setting as it is, or lets it go unless it is frozen for good."""
        self._tell(frozen=float(held or self._frozen))

    def freeze(self, batches: int = 0) -> None:
        """Leaves the setting at the mean of the last ones, as `freeze_after` says."""
        self._frozen = True
        self._tell(frozen=1.0)

    def end_epoch(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Notes an epoch's figures; returns settings and errors by log key."""
        asked = self._target, figures, self._watched
        errors, figure = self._settings.outcome(*asked)
        if errors:
            self._figure = figure
        return self.values() | errors

    def check_reach(self) -> None:
        """Warns if nothing moves the layers, or if they stay short at the bound."""
        unpushed = self._unpushed if self.started else []
        for name in unpushed:
            step_messages.warn_of_no_gradient(self._messages, name)
        if len(unpushed) == len(self._watched):
            return
        stays = self._own_state().level < self._level_at_bound + _REACHED
        if self._readings_at_bound >= _AT_BOUND and stays and self._aims_at_target:
            self._stays_at_bound = True
            step_messages.warn_of_bound(
                self._messages,
                self._subject,
                (self._figure, self._target),
                (self._settings.actuator, self._settings.bounds[1]),
            )

    def conclude(self, of_run: int, *, by_steps: bool = False) -> Shortfall | None:
        """Says what was found; returns why more was not, if the run was too short.

        Args:
            of_run: How many batches the run had.
            by_steps: Whether a floor of accuracy let it go by a step an epoch, and
                nothing else held it.
        """
        figures = self._figure, self._target
        step_messages.say_found(self._messages, self._subject, *figures, self.values())
        missing = self._target - self._figure
        if not self.started:
            step_messages.say_no_figure(self._messages, self._subject)
        aims = self._aims_at_target or (by_steps and missing > 0)
        if not aims or not abs(missing) > _REACHED:
            return None
        state = self._own_state()
        if missing < 0 and state.output <= self._control.law.low:
            rose = state.start < self._target - _REACHED
            setting = self._settings.actuator, self._settings.bounds[0]
            step_messages.say_too_sparse(
                self._messages, self._subject, figures, setting, rose
            )
        if not self._is_pushed or missing < 0:
            return None
        few, ramp = of_run < _FEW_BATCHES, int(self._control.plan.ramp[self._index])
        if not few and self._target + self._offset - state.level <= _REACHED:
            return None  # The probe data differ from the training batches.
        # The state and the ramp are those of the last step.
        late = not self._aims_at_target or state.batches < max(_FEW_BATCHES, ramp)
        late = by_steps and late
        return Shortfall(self._target, of_run, few, ramp, self._frozen, late)

    def state(self) -> dict[str, float]:
        """Returns all that a resumed run needs beside the state of the control."""
        return {
            "figure": self._figure,
            "offset": self._offset,
            "readings_at_bound": self._readings_at_bound,
            "level_at_bound": self._level_at_bound,
            "readings_wrong": self._readings_wrong,
            "is_wrong": self._is_wrong,
        }

    def resume(self, state: Mapping[str, float]) -> None:
        """Goes on from the `state` of an earlier run."""
        self._figure, self._offset = state["figure"], state["offset"]
        self._readings_at_bound = int(state["readings_at_bound"])
        self._level_at_bound = state["level_at_bound"]
        self._readings_wrong = int(state["readings_wrong"])
        self._is_wrong = bool(state["is_wrong"])

    def _succeed(self, old: "StepGroup") -> None:
        """Goes on from an older group; the control knows if it is frozen or blocked."""
        self.resume(old.state())
        self._frozen, self._stays_at_bound = old._frozen, old._stays_at_bound
        self._tell(setpoint=self._aim + self._offset)

    @property
    def _aims_at_target(self) -> bool:
        return self._aim == self._target

    @property
    def _is_pushed(self) -> bool:
        """Whether nothing that was said keeps it from getting sparser."""
        plan = self._control.plan
        # By the floor, or as the loss is not finite.
        held = plan.frozen[self._index] and not self._frozen
        blocked = held or plan.blocked[self._index] or self._stays_at_bound
        return not blocked and len(self._unpushed) < len(self._watched)

    @property
    def _unpushed(self) -> list[str]:
        """Names of the layers that no push moves."""
        unpushed = set(self._control.unpushed())
        return [w.name for w in self._watched if w.name in unpushed]

    def _error(self, state: State) -> float:
        """How far the filtered figure is below where it is to be."""
        return self._aim + self._offset - state.level

    def _own_state(self) -> State:
        return State(*(float(numbers[self._index]) for numbers in self._control.state))

    def _tell(self, **told: float) -> None:
        """Changes what the control is told of this group."""
        plan = self._control.plan
        for field, number in told.items():
            getattr(plan, field)[self._index] = number
        self._control.plan = plan

    def _check_dead(self, dead_shares: Mapping[str, float]) -> None:
        """Spares layers with too many dead units; with no others, holds back from more.

        A layer whose zeros save little must not keep all others from the target.
        """
        known = [w.name for w in self._watched if w.name in dead_shares]
        if not known or self._settings.actuator != "penalty":
            return
        max_dead = self._settings.max_dead
        too_dead = [name for name in known if dead_shares[name] > max_dead]
        for name in too_dead:
            share = dead_shares[name]
            self._messages.dead_units(self._subject, name, share, max_dead)
        names = [w.name for w in self._watched]
        all_are = len(too_dead) == len(names)
        self._block(all_are or self._is_wrong)
        if not all_are and len(names) > 1:
            self._control.spare(too_dead, names)

    def _block(self, blocked: bool) -> None:
        if blocked != self._control.plan.blocked[self._index]:
            self._tell(blocked=float(blocked))

    def _check_direction(self, error: float, state: State) -> None:
        """Stops a penalty that moves the figure away from the target."""
        if self._settings.actuator != "penalty" or self._is_wrong:
            return
        level, start = max(state.level, 0.0), state.start
        wrong = error > _REACHED and level < start - _REACHED and state.slope < 0
        wrong = wrong and self._control.pushes()[self._index] > _FELT_PUSH
        self._readings_wrong = self._readings_wrong + 1 if wrong else 0
        if self._readings_wrong >= _WRONG_READINGS and not self._unpushed:
            self._is_wrong = True
            self._control.release(self._index)
            self._block(True)
            pushed = self._control.settings.kind, self._settings.bounds[0]
            step_messages.warn_of_wrong_way(
                self._messages, self._subject, pushed, level, start
            )
