"""The layers that share one loop of a SparsityController."""

import math
import warnings
import zlib

import numpy as np

from keras_sparseout.callbacks.feedback_loop import ACTUATORS, Loop
from keras_sparseout.utils.layer_text import call_of

# Fewer vectors can't tell a dead unit from one that fires rarely.
ENOUGH_FOR_DEAD = 256
# Readings at a bound, with no gain, after which a target is out of reach.
_PATIENCE = 32


class Group:
    """One layer, or all together: its loop, its settings, and what it came to.

    Args:
        watched: The layers, as `WatchedLayer`.
        controller: The `SparsityController`, whose settings are read.
    """

    def __init__(self, watched, controller):
        self.watched = watched
        self.name = ", ".join(w.name for w in watched)
        self.metric = controller.metric
        self.actuator = controller.actuator
        self.max_dead = controller.max_dead
        first = watched[0].layer
        # With q > 2 a higher rate makes activations denser.
        falling = self.actuator == "rate" and first.q > 2
        if self.actuator == "rate" and len({w.layer.q > 2 for w in watched}) > 1:
            qs = ", ".join(f"{w.name} of q={w.layer.q:g}" for w in watched)
            raise ValueError(
                "`together` must be False where a higher rate makes some layers "
                "sparser, and others, of q > 2, denser. Received: together=True, with "
                f"{qs}. Give each layer its own rate."
            )
        self.loop = Loop(
            float(np.mean([controller.targets[w.name] for w in watched])),
            getattr(first, self.actuator),
            ACTUATORS[self.actuator],
            controller.bounds,
            sign=-1 if falling else 1,
            gain=controller.gain,
            dead_band=controller.dead_band,
        )
        settings = (self.name, self.metric, self.actuator, self.loop.target)
        settings += (self.loop.bounds, controller.data is None)
        self._signature = float(zlib.crc32(repr(settings).encode()))
        self._restore(first)
        self.reached = (math.inf, -math.inf)
        self._figure = math.nan
        self.frozen = False
        self._errors_at_bound = []
        self._warned_of_dead = self._warned_of_reach = False

    def _restore(self, layer):
        """Goes on from the layer's state, if it is of this loop and untouched since."""
        state, fresh = layer.controller_state, self.loop.state()
        if state is None or not len(state):
            return
        if state[0] != self._signature and not math.isnan(state[0]):
            return
        try:
            if math.isnan(state[0]):
                raise ValueError("the first is NaN")
            self.loop.restore(state[1:])
        except ValueError as error:
            raise ValueError(
                f"Layer {layer.name!r}: `controller_state` must be the numbers that a "
                f"SparsityController left there. Received: {state.tolist()}, of which "
                f"{error}. Set it to None for the controller to begin anew, or load a "
                "file that is whole."
            ) from None
        setting = getattr(layer, self.actuator)
        if np.float32(self.loop.value) != np.float32(setting):
            self.loop.restore(fresh)

    def mean(self, prefix, figures):
        """The mean of the layers' figures, of those that have one."""
        known = [figures[f"{prefix}{self.metric}/{w.name}"] for w in self.watched]
        known = [figure for figure in known if not math.isnan(figure)]
        return float(np.mean(known)) if known else math.nan

    def assign(self):
        """Gives the layers the setting of the loop."""
        for w in self.watched:
            setattr(w.layer, self.actuator, self.loop.value)

    def move(self, figures):
        """Moves the setting by the figures of a reading."""
        bounds = self.loop.bounds
        self.loop.update(self.mean("", figures))
        self.assign()
        if self.loop.bounds != bounds:
            low, high = self.loop.bounds
            warnings.warn(
                f"SparsityController: beyond [{low:g}, {high:g}] {self.actuator} took "
                f"{self.metric} of {self.name} away from its target, so it stays "
                "within. Give narrower `bounds` to keep it from there.",
                stacklevel=3,
            )
        if self.loop.at_bound:
            errors = [*self._errors_at_bound, abs(self.loop.error)]
            self._errors_at_bound = errors[-_PATIENCE:]
        else:
            self._errors_at_bound = []
        self._keep_state()

    def freeze(self):
        """Leaves the setting at the mean of the last ones."""
        if not self.frozen:
            self.frozen = True
            self.loop.freeze()
            self.assign()
            self._keep_state()

    def _keep_state(self):
        # Where a resumed run finds it: it is saved with the layer's weights.
        self.watched[0].layer.controller_state = [self._signature, *self.loop.state()]

    def check_zeros(self, figures):
        """Raises if `zero_fraction` is asked of activations that are never 0."""
        for w in self.watched:
            key = f"zero_fraction/{w.name}"
            if self.loop.readings == 0 and figures.get(key) == 0:
                raise ValueError(
                    "`metric` must be one that the activations have: those of layer "
                    f"{w.name!r} were never 0 in the first reading, as after tanh or "
                    'GELU. Received: metric="zero_fraction". Give metric="hoyer".'
                )

    def check_dead(self, dead, counts):
        """Holds the loop back from sparser while too many units are dead.

        Args:
            dead: Dict of shares of dead units by layer.
            counts: Dict of the numbers of vectors that they were taken from.
        """
        enough = [w.name for w in self.watched if counts[w.name] >= ENOUGH_FOR_DEAD]
        if not enough:
            return
        worst = max(enough, key=lambda name: dead[name])
        self.loop.held = dead[worst] > self.max_dead
        if self.loop.held and not self._warned_of_dead:
            self._warned_of_dead = True
            warnings.warn(
                f"SparsityController: {dead[worst]:.0%} of the units of {worst} are "
                "dead, so it stops pushing toward sparser. Ask for less, or raise "
                f"`max_dead`, now {self.max_dead:g}.",
                stacklevel=3,
            )

    def end_epoch(self, prefix, figures):
        """Notes the epoch's figures, if there are any; returns what goes into logs."""
        logs = {
            f"{self.actuator}/{w.name}": getattr(w.layer, self.actuator)
            for w in self.watched
        }
        known = {w.name: f"{prefix}{self.metric}/{w.name}" for w in self.watched}
        if known[self.watched[0].name] not in figures:
            return logs
        self._figure = self.mean(prefix, figures)
        low, high = self.reached
        self.reached = (min(low, self._figure), max(high, self._figure))
        for name, key in known.items():
            logs[f"error/{name}"] = self.loop.target - figures[key]
        return logs

    def unreachable(self):
        """Whether the target turned out to be out of reach; once."""
        errors = self._errors_at_bound
        stuck = len(errors) == _PATIENCE and errors[-1] > max(0.01, errors[0] - 0.01)
        first = stuck and not self._warned_of_reach
        self._warned_of_reach = self._warned_of_reach or stuck
        return first

    def conclusion(self):
        """What was found, as text that lets it be repeated."""
        value = self.loop.value
        fixed = value if self.frozen else self.loop.mean
        calls = [call_of(w.layer, **{self.actuator: fixed}) for w in self.watched]
        return (
            f"{self.metric} of {self.name} is {self._figure:.3f}, asked for "
            f"{self.loop.target:g}, at {self.actuator} = {value:.3g}, over the run "
            f"{self.loop.mean:.3g}. To repeat it fixed: {', '.join(calls)}"
        )
