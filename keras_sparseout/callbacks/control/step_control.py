"""Control inside the training step: the layers' figures in, their settings out."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import numerics, variables
from keras_sparseout.callbacks.control import step_law
from keras_sparseout.callbacks.control.macs_budget import MacsBudget
from keras_sparseout.callbacks.control.penalty_push import Kind, PenaltyPush
from keras_sparseout.callbacks.control.step_law import Law, Plan, State
from keras_sparseout.layers.adjustable import move_knob
from keras_sparseout.measure import layer_selection, layer_sums
from keras_sparseout.measure.hooks import Overrides
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.metrics import ZeroFraction
from keras_sparseout.metrics.base import StreamingMetric
from keras_sparseout.utils.types import Tensor

StepActuator: TypeAlias = Literal["penalty", "threshold"]

# A run has so many units of time, if these are not too short or too long.
_UNITS = 200
_LONGEST_UNIT = 32
# Until the end of a first epoch of unknown length.
_UNKNOWN_BATCHES = 1000

# The push of a penalty, in parts of the push of the loss, is linear in the output up to
# about here, and exponential above.
_SMALL_PUSH = 0.01
# The bounds are set by the user.
LAWS: dict[StepActuator, Law] = {
    "penalty": Law(
        gain=30.0,
        integral_time=12.0,
        lag=5.0,
        slew=1.0,
    ),
    "threshold": Law(gain=0.5, integral_time=2.0, lag=0.0, slew=0.2),
}
# A layer that is asked for zeros gives them. What is left to correct is small and slow:
# far from the setpoint something else is at work, such as more natural zeros.
_DIRECT = Law(
    gain=0.05, integral_time=2.0, lag=0.0, slew=0.2, feedforward=1.0, correction=0.05
)


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What is controlled, and how.

    Attributes:
        actuator: What is moved.
        kind: Which penalty; only for "penalty".
        metric: The streaming metric whose figure is controlled.
        together: Whether all layers are one group, with the mean figure.
        budget: What the model's MACs are, if the figure is the share of them that zeros
            make needless. Each layer is then pushed by what its zeros save. None for
            the mean of the layers' figures.
        sample_size: How many samples of each batch are measured, the first ones.
        bounds: Least and largest push of a penalty, or target of a layer.
        gain: Factor of the gain.
    """

    actuator: StepActuator
    kind: Kind
    metric: StreamingMetric
    together: bool
    budget: MacsBudget | None
    sample_size: int
    bounds: tuple[float, float]
    gain: float


class StepControl:
    """Moves penalties or thresholds of layers, one step of control each batch.

    While the model's step is traced, `acting` puts functions around the layers' calls,
    and `update` adds the law to the graph. The variables are its own: nothing of
    it belongs to the model.

    Args:
        model: The model that is trained.
        watched: The layers.
        settings: What is controlled, and how.
    """

    def __init__(
        self,
        model: keras.Model,
        watched: Sequence[WatchedLayer],
        settings: StepSettings,
    ) -> None:
        self.arguments = model, watched, settings
        self.model, self.watched, self.settings = self.arguments
        low, high = settings.bounds
        if settings.actuator == "penalty":
            low, high = map(_to_output, settings.bounds)
        law = LAWS[settings.actuator]
        if settings.actuator == "threshold":
            if settings.budget is not None:
                law = law._replace(feedforward=1 / settings.budget.shares.most)
            elif isinstance(settings.metric, ZeroFraction):
                law = _DIRECT
        self.law = law._replace(gain=law.gain * settings.gain, low=low, high=high)
        names = [w.name for w in watched]
        self.groups = [names] if settings.together else [[name] for name in names]
        self._group_of = {n: i for i, names in enumerate(self.groups) for n in names}
        members = [[name in group for name in names] for group in self.groups]
        self._members = np.array(members, "float32")
        shares = dict.fromkeys(names, 1.0)
        if settings.budget is not None:
            shares = settings.budget.of_layers
        self._shares = np.array([shares[name] for name in names], "float32")
        self._pushes: list[PenaltyPush] = []
        with model.distribute_strategy.scope():
            self._state = _vectors("state", len(State._fields), len(self.groups))
            self._plan = _vectors("plan", len(Plan._fields), len(self.groups))
            self._spared = _vectors("spared", 1, len(watched))
            if settings.actuator == "penalty":
                arguments = settings.kind, settings.sample_size
                self._pushes = [PenaltyPush(model, w, *arguments) for w in watched]
        plan = Plan(*np.zeros((len(Plan._fields), len(self.groups))))
        self.plan = plan._replace(unit=np.ones(len(self.groups)))
        if settings.actuator == "threshold":
            self._start_at_targets()

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Puts the settings to work on the calls of the layers in this context."""
        budget = self.settings.budget
        counting = contextlib.nullcontext() if budget is None else budget.step.acting()
        with counting, self._moving():
            yield

    @contextlib.contextmanager
    def _moving(self) -> Iterator[None]:
        # A cast reads a variable.
        outputs = State(*ops.unstack(ops.cast(self._state, "float32"))).output
        if self.settings.actuator == "threshold":
            for w in self.watched:
                move_knob(w.layer, "target", outputs[self._group_of[w.name]])
            yield
            return
        norms = ops.stack([ops.cast(push.norms, "float32") for push in self._pushes])
        columns = ops.unstack(norms, axis=1)
        pushed = 1 - ops.cast(self._spared, "float32")[0]
        weights = ops.unstack(self._penalties(ops, outputs, columns, pushed))
        arounds = [
            (push.watched.layer, "call", push.around(weight))
            for push, weight in zip(self._pushes, weights, strict=True)
        ]
        with Overrides(arounds):
            yield

    # The figure of a layer without vectors is NaN.
    @numerics.unchecked()
    def update(self, sums: Mapping[str, Tensor]) -> None:
        """Makes a step of control.

        Args:
            sums: Dict of the sums of a batch by layer, those of the metric first. A
                layer that was not called is missing.
        """
        self._check_pushed(sums)
        if self.settings.budget is None:
            figure = self._means(sums)
        else:
            self.settings.budget.step.update(sums)
            figure = ops.reshape(self.settings.budget.step.figure, (1,))
        told = [ops.cast(numbers, "float32") for numbers in (self._state, self._plan)]
        self._state.assign(step_law.program(self.law)(*told, figure))

    def _means(self, sums):
        """Returns the figure of each group: the mean of its layers' figures."""
        figures = [ops.convert_to_tensor(np.nan, "float32")] * len(self.watched)
        for i, w in enumerate(self.watched):
            if w.name in sums:
                figures[i] = ops.cast(self._figure(sums[w.name]), "float32")
        of_layers = ops.stack(figures)
        known = ops.isfinite(of_layers)
        of_layers = ops.where(known, of_layers, 0.0)
        counted = _dot(ops, self._members, ops.cast(known, "float32"))
        figure = _dot(ops, self._members, of_layers) / counted
        return ops.where(counted > 0, figure, np.nan)

    def group_of(self, name: str) -> int:
        """Returns the number of the group that the layer of this name is in."""
        return self._group_of[name]

    @property
    def state(self) -> State:
        """The state of the law, as NumPy arrays."""
        return State(*np.array(variables.to_numpy(self._state), "float64"))

    @property
    def plan(self) -> Plan:
        """What the law is told, as NumPy arrays."""
        return Plan(*np.array(variables.to_numpy(self._plan), "float64"))

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._plan.assign(np.stack(np.broadcast_arrays(*plan)))

    def spare(self, names: Collection[str], among: Iterable[str]) -> None:
        """Pushes the layers of these names no more, and all others `among` again."""
        spared = np.array(variables.to_numpy(self._spared))
        index = {w.name: i for i, w in enumerate(self.watched)}
        for name in among:
            spared[0, index[name]] = name in names
        self._spared.assign(spared)

    def begin_run(self) -> None:
        """Begins a new ramp at the present figures. The settings go on."""
        old = self.state
        fresh = State(*np.zeros_like(np.stack(old)))
        kept = {"integral": old.integral, "output": old.output, "recent": old.recent}
        self._state.assign(np.stack(fresh._replace(**kept)))

    def release(self, group: int) -> None:
        """Takes the push of a group away, by the group's number."""
        state = self.state
        for numbers in (state.integral, state.output, state.recent):
            numbers[group] = self.law.low
        self._state.assign(np.stack(state))

    def plan_run(self, left: int | None, reach_by: float) -> None:
        """Sets the ramp, and the unit of time, by the length of the run.

        Args:
            left: How many batches it has left; None if that is unknown.
            reach_by: The part of it after which the ramp ends.
        """
        total = float(np.max(self.state.batches)) + (left or _UNKNOWN_BATCHES)
        unit = np.clip(total / _UNITS, 1, _LONGEST_UNIT)
        plan = self.plan
        ones = np.ones_like(plan.unit)
        self.plan = plan._replace(unit=unit * ones, ramp=reach_by * total * ones)

    def numbers(self) -> list[np.ndarray]:
        """Returns all that a resumed run needs."""
        kept = [self._state, self._plan, *(push.norms for push in self._pushes)]
        return [np.array(variables.to_numpy(variable)) for variable in kept]

    def resume(self, numbers: Sequence[np.ndarray]) -> None:
        """Goes on from the `numbers` of an earlier run."""
        kept = [self._state, self._plan, *(push.norms for push in self._pushes)]
        for variable, number in zip(kept, numbers, strict=True):
            variable.assign(number)

    def values(self) -> dict[str, float]:
        """Returns the setting of each layer by name: a penalty's weight or a target."""
        outputs = self.state.output
        if self.settings.actuator == "threshold":
            return {name: float(outputs[i]) for name, i in self._group_of.items()}
        norms = np.array([variables.to_numpy(push.norms) for push in self._pushes])
        pushed = 1 - np.array(variables.to_numpy(self._spared))[0]
        weights = self._penalties(np, outputs, norms.T, pushed)
        names = [w.name for w in self.watched]
        return dict(zip(names, map(float, weights), strict=True))

    def pushes(self) -> np.ndarray:
        """Returns how hard each group is pushed: in parts of the loss's own push."""
        return _SMALL_PUSH * np.sinh(self.state.output)

    def unpushed(self) -> list[str]:
        """Returns the names of layers that no gradient of the loss moves."""
        return [
            push.watched.name
            for push in self._pushes
            if not np.any(variables.to_numpy(push.norms))
            or not layer_selection.trainable_before(self.model, push.watched)
        ]

    def _penalties(self, xp, outputs, norms, pushed):
        """Returns the weights of the layers' penalties, so that they push as asked.

        In a group the penalties of the layers have fixed proportions. Together they
        push so many times as hard as the loss does.

        Args:
            xp: What computes it, keras.ops or numpy.
            outputs: The output of each group.
            norms: The `norms` of the layers' pushes, a vector for each part of them.
            pushed: 0 for layers that are spared, otherwise 1.
        """
        count, loss, pushing, units = norms
        # A penalty of n units is up to n.
        units = units / xp.maximum(count, keras.config.epsilon())
        proportions = pushed * self._shares / xp.maximum(units, 1.0)
        pushing = _dot(xp, self._members, proportions * pushing)
        ratios = _dot(xp, self._members, loss) / (pushing + 1e-30)
        of_groups = _SMALL_PUSH * xp.sinh(outputs) * ratios
        return proportions * _dot(xp, np.transpose(self._members), of_groups)

    def _figure(self, sums):
        """Returns the figure of a layer, from the vector of its sums of a batch."""
        metric, parts, start = self.settings.metric, [], 0
        for shape in metric.shapes(None):
            size = layer_sums.size([shape])
            parts.append(ops.reshape(sums[start : start + size], shape))
            start += size
        return metric.figure(*parts)

    def _check_pushed(self, sums):
        """Raises if a layer is measured that no penalty can push."""
        for push in self._pushes:
            name, side = push.watched.name, push.watched.side
            if push.refused and name in sums:
                raise ValueError(
                    f"`layers` must be layers whose {side}s are dense floating-point "
                    f"tensors, for a penalty to push them. Received: layers={name}, "
                    f"whose {side} is {push.refused}. Leave it out."
                )

    def _start_at_targets(self):
        first = [names[0] for names in self.groups]
        targets = {w.name: w.layer.target for w in self.watched}
        output = np.array([targets[name] for name in first])
        state = State(*np.zeros((len(State._fields), len(first))))
        integral = (1 - self.law.feedforward) * output
        state = state._replace(integral=integral, output=output, recent=output)
        self._state.assign(np.stack(state))


def _to_output(push: float) -> float:
    # As the variable keeps it, so that an output at its bound equals it.
    return float(np.float32(np.arcsinh(push / _SMALL_PUSH)))


def _vectors(name: str, fields: int, groups: int) -> keras.Variable:
    """Makes a variable with a vector for each field, the same on all replicas."""
    return keras.Variable(
        ops.zeros((fields, groups)),
        trainable=False,
        dtype="float32",
        aggregation="mean",
        name=name,
    )


def _dot(xp, matrix, vector):
    return xp.matmul(matrix, vector[:, None])[:, 0]
