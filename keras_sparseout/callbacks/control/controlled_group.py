"""The layers that share one feedback loop of a SparsityController."""

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from keras_sparseout.callbacks import knobs
from keras_sparseout.callbacks.control.accuracy_floor import Outcome
from keras_sparseout.callbacks.control.actuators import ACTUATORS, ActuatorName
from keras_sparseout.callbacks.control.control_settings import ControlSettings
from keras_sparseout.callbacks.control.feedback_loop import FeedbackLoop
from keras_sparseout.callbacks.control.loop_state import saved_in
from keras_sparseout.callbacks.control.messages import ControllerMessages
from keras_sparseout.callbacks.control.run_length import (
    ANY_TIME,
    LEAST_READINGS,
    ReadingTime,
)
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.utils.layer_text import call_of

# Readings at a bound, with no gain, after which a target is out of reach.
_PATIENCE = 32
# The share of a run that may be left when a target is called out of reach.
_LATE = 1 / 4
# The largest error with which a target counts as reached, and with which a held setting
# counts as one that would reach it too: it comes out a little differently.
_REACHED = 0.02
_REPEATABLE = 0.01


class ControlledGroup:
    """One layer, or all together: their feedback loop, and what it came to.

    Args:
        watched: The layers.
        target: The figure asked for.
        settings: What all groups share.
        messages: What the controller says.
    """

    def __init__(
        self,
        watched: Sequence[WatchedLayer],
        target: float,
        settings: ControlSettings,
        messages: ControllerMessages,
    ) -> None:
        self._watched = watched
        self._target = target
        self._settings = settings
        self._messages = messages
        name = ", ".join(w.name for w in watched)
        self._subject = settings.subject(watched)
        self._loop = FeedbackLoop(
            target,
            self._setting_of_layers(),
            ACTUATORS[settings.actuator],
            settings.bounds,
            sign=_sign(watched, settings.actuator),
            gain=settings.gain,
            dead_band=settings.dead_band,
        )
        # What makes it the same loop in a resumed run.
        names = name, settings.metric, settings.actuator
        key = (*names, target, settings.bounds, not settings.has_probe)
        self._signature = float(zlib.crc32(repr(key).encode()))
        self._restore()
        self._figure = math.nan
        self._reached = math.inf, -math.inf
        self._frozen = False
        self._errors_at_bound: list[float] = []
        self._time = ANY_TIME

    @property
    def came_to(self) -> Outcome:
        """What the last epoch came to."""
        return Outcome(self._subject, self._target, self._figure)

    @property
    def started(self) -> bool:
        """Whether the loop has had a reading."""
        return self._loop.state.readings > 0

    def values(self) -> dict[str, float]:
        """Returns the settings of the layers by log key."""
        return knobs.values(self._watched, self._settings.actuator)

    def take(
        self,
        figures: Mapping[str, float],
        dead_shares: Mapping[str, float],
        time: ReadingTime = ANY_TIME,
    ) -> None:
        """Moves the setting by the figures of a reading.

        Args:
            figures: Figures of training batches, by log key.
            dead_shares: Shares of dead units by layer, of those where they are known.
            time: When the reading is taken.
        """
        self._time = time
        self._check_dead(dead_shares)
        bounds = self._loop.bounds
        self._loop.update(self._settings.figure("", figures, self._watched), time)
        self._assign()
        if self._loop.bounds != bounds:
            self._messages.retreat(
                self._subject, self._settings.actuator, self._loop.bounds
            )
        if self._loop.state.reversed:
            self._messages.wrong_way(self._subject, self._settings.actuator)
        errors = [*self._errors_at_bound, abs(self._loop.error)]
        self._errors_at_bound = errors[-_PATIENCE:] if self._loop.at_bound else []

    def shift_setpoint(self, figures: Mapping[str, float]) -> None:
        """Moves the setpoint toward the gap to `figures` of probe data."""
        figure = self._settings.figure("val_", figures, self._watched)
        self._loop.shift_setpoint(figure)

    def aim_at(self, figure: float) -> None:
        """Goes to `figure` instead of the target."""
        self._loop.target = figure

    def restored(self, figure: float) -> None:
        """Takes in that the layers have earlier weights again, with this figure."""
        self._figure = figure
        self._restore()

    def freeze(self, batches: int) -> None:
        """Leaves the setting at the mean of the last ones.

        Args:
            batches: How many batches the model was trained on.
        """
        if not self._frozen:
            self._frozen = True
            self._loop.freeze(batches)
            self._assign()

    def end_epoch(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Notes an epoch's figures; returns settings and errors by log key.

        Args:
            figures: Figures by log key. Those of probe data count if there are any; an
                epoch without any batch may have none.
        """
        asked = self._target, figures, self._watched
        errors, figure = self._settings.outcome(*asked)
        if errors:
            self._figure = figure
            low, high = self._reached
            self._reached = min(low, self._figure), max(high, self._figure)
        return self.values() | errors

    def check_reach(self) -> None:
        """Says that the setting is at a bound, and warns if nothing is gained there."""
        errors, loop, time = self._errors_at_bound, self._loop, self._time
        actuator = self._settings.actuator
        given_up = loop.target != self._target
        if len(errors) < _PATIENCE or given_up or not self._stays_off():
            return
        self._messages.at_bound(self._subject, loop.target, actuator, loop.setting)
        if math.isinf(time.readings) or time.left <= _LATE * time.readings:
            self._messages.out_of_reach(
                self._subject, loop.target, actuator, loop.bounds, self._reached
            )

    def _stays_off(self) -> bool:
        """Whether the error at the bound will last until the end, as it goes on now."""
        errors, left = self._errors_at_bound, self._time.left
        gained = errors[0] - errors[-1]
        if math.isinf(left):
            return errors[-1] > 0.01 >= gained
        return errors[-1] - max(gained, 0.0) * left / len(errors) > _REACHED

    @property
    def has_reached(self) -> bool:
        """Whether the last figure is at the target."""
        return abs(self._figure - self._target) <= _REACHED

    @property
    def is_repeatable(self) -> bool:
        """Whether the last figure is so near that the same may be got again."""
        return abs(self._figure - self._target) <= _REPEATABLE

    def steady_setting(self, batches: int) -> float | None:
        """Returns the setting that held over the run, None if it moved.

        Args:
            batches: How many batches the model was trained on.
        """
        steady = self._loop.steady_setting(batches)
        return self._loop.setting if self._frozen and steady is not None else steady

    def conclude(self, fixed: float | None) -> None:
        """Says what was found, so that it can be repeated, or why it was not.

        Args:
            fixed: The setting that gives the same if it is held, None if none is known.
        """
        actuator, loop = self._settings.actuator, self._loop
        calls = []
        if fixed is not None:
            calls = [call_of(w.layer, **{actuator: fixed}) for w in self._watched]
        self._messages.found(
            self._subject,
            figure=self._figure,
            target=self._target,
            actuator=actuator,
            setting=self._setting_of_layers(),
            mean=loop.mean_setting,
            calls=calls,
        )
        blocked = loop.state.sparser_blocked or loop.state.reversed
        if not (self.has_reached or blocked or loop.target != self._target):
            self._say_why_not()

    def _say_why_not(self) -> None:
        """Says why the target was not reached, where that is known."""
        loop, readings = self._loop, self._loop.state.readings
        if self._frozen:
            self._messages.frozen_early(self._subject, loop.target)
        elif loop.at_bound:
            actuator = self._settings.actuator
            self._messages.at_bound(self._subject, loop.target, actuator, loop.setting)
        elif 0 < readings < LEAST_READINGS:
            self._messages.too_few_readings(
                self._subject, loop.target, readings, self._time.every
            )

    def _setting_of_layers(self) -> float:
        return getattr(self._watched[0].layer, self._settings.actuator)

    def _assign(self) -> None:
        """Gives the layers the setting of the loop, and saves its state."""
        knobs.assign(self._watched, self._settings.actuator, self._loop.setting)
        # Where a resumed run finds it: it is saved with the layer's weights.
        state = [self._signature, *self._loop.state.numbers]
        self._watched[0].layer.controller_state = state

    def _restore(self) -> None:
        """Goes on from the layer's state, if it is of this loop and untouched since."""
        state = saved_in(self._watched[0].layer, self._signature)
        if state is None:
            return
        fresh, self._loop.state = self._loop.state, state
        if np.float32(self._loop.setting) != np.float32(self._setting_of_layers()):
            self._loop.state = fresh

    def _check_dead(self, dead_shares: Mapping[str, float]) -> None:
        """Holds the loop back from sparser while too many units are dead."""
        known = [w.name for w in self._watched if w.name in dead_shares]
        if known:
            worst = max(known, key=lambda name: dead_shares[name])
            share, max_dead = dead_shares[worst], self._settings.max_dead
            self._loop.block_sparser(share > max_dead)
            if share > max_dead:
                self._messages.dead_units(self._subject, worst, share, max_dead)


def _sign(watched: Sequence[WatchedLayer], actuator: ActuatorName) -> int:
    """Returns -1 if more of the actuator makes the layers denser, else 1."""
    if actuator != "rate":
        return 1
    # With q > 2 a higher rate makes activations denser.
    if len({w.layer.q > 2 for w in watched}) > 1:
        qs = ", ".join(f"{w.name} of q={w.layer.q:g}" for w in watched)
        raise ValueError(
            "`together` must be False where a higher rate makes some layers sparser, "
            f"and others, of q > 2, denser. Received: together=True, with {qs}. Give "
            "each layer its own rate."
        )
    return -1 if watched[0].layer.q > 2 else 1
