"""Control inside the training step: the layers' figures in, their settings out."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
from keras import ops

from keras_sparseout.backend import numerics
from keras_sparseout.callbacks import knobs
from keras_sparseout.callbacks.control import push_weights, step_program
from keras_sparseout.callbacks.control.macs_budget import MacsBudget
from keras_sparseout.callbacks.control.penalty_push import Kind
from keras_sparseout.callbacks.control.pushes import Pushes
from keras_sparseout.callbacks.control.step_law import Law, Plan, State
from keras_sparseout.callbacks.control.step_variables import StepVariables
from keras_sparseout.layers.adjustable import move_knob
from keras_sparseout.measure import layer_sums
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.metrics import ZeroFraction
from keras_sparseout.metrics.base import StreamingMetric
from keras_sparseout.utils.types import Tensor

StepActuator: TypeAlias = Literal["penalty", "threshold"]

# A run has so many units of time, if these are not too short or too long.
_UNITS = 200
_LONGEST_UNIT = 32

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
        pushes = settings.actuator == "penalty"
        to_scale = push_weights.to_output if pushes else float
        # As the step has them, so that an output at a bound is equal to it.
        low, high = (float(np.float32(to_scale(bound))) for bound in settings.bounds)
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
        self._variables = StepVariables()
        self._pushes: Pushes | None = None
        with model.distribute_strategy.scope():
            self._variables.make("state", len(State._fields), len(self.groups))
            self._variables.make("plan", len(Plan._fields), len(self.groups))
            if pushes:
                shares = [1.0] * len(names)
                if settings.budget is not None:
                    shares = [settings.budget.of_layers[name] for name in names]
                options = settings.kind, settings.sample_size, shares, self._members
                self._pushes = Pushes(model, watched, *options, self._variables)
        plan = Plan(*np.zeros((len(Plan._fields), len(self.groups))))
        self.plan = plan._replace(unit=np.ones(len(self.groups)))
        if settings.actuator == "threshold":
            self._start_at_targets()

    @property
    def only_inner(self) -> bool:
        """Whether it pushes layers: a push of the last one changes what is learned."""
        return self._pushes is not None

    def leave_out(self, names: Collection[str]) -> None:
        """Pushes the layers of these names no more, whatever their groups do.

        Raises:
            ValueError: if those are all.
        """
        if len(names) == len(self.watched):
            raise knobs.only_outputs(self.model, self.watched)
        if self._pushes is not None:
            self._pushes.leave_out(names)

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Puts the settings to work on the calls of the layers in this context."""
        budget = self.settings.budget
        counting = contextlib.nullcontext() if budget is None else budget.step.acting()
        with counting, self._moving():
            yield

    def _moving(self) -> AbstractContextManager[Any]:
        if self._pushes is not None:
            return self._pushes.acting()
        outputs = State(*ops.unstack(self._variables.tensor("state"))).output
        for w in self.watched:
            move_knob(w.layer, "target", outputs[self._group_of[w.name]])
        return contextlib.nullcontext()

    # The figure of a layer without vectors is NaN.
    @numerics.unchecked()
    def update(self, sums: Mapping[str, Tensor]) -> None:
        """Makes a step of control.

        Args:
            sums: Dict of the sums of a batch by layer, those of the metric first. A
                layer that was not called is missing.
        """
        if self._pushes is not None:
            self._pushes.check_pushed(sums)
        if self.settings.budget is None:
            figures, counted = self._figures(sums), self._members
        else:
            self.settings.budget.step.update(sums)
            figures = ops.reshape(self.settings.budget.step.figure, (1,))
            counted = np.ones((1, 1), "float32")
        told = [figures, counted, *map(self._variables.tensor, ("state", "plan"))]
        pushed = [] if self._pushes is None else self._pushes.told()
        state, *moved = step_program.program(self.law)(*told, *pushed)
        self._variables.move("state", state)
        if self._pushes is not None:
            self._pushes.move(*moved)

    def _figures(self, sums: Mapping[str, Tensor]) -> Tensor:
        """Returns the figures of the layers; NaN for those that were not called."""
        metric = self.settings.metric
        number = layer_sums.size(metric.shapes(None))
        none = np.zeros(number)
        own = [sums[w.name][:number] if w.name in sums else none for w in self.watched]
        # All at once, as each sum is a number.
        return ops.cast(metric.figure(*ops.unstack(ops.stack(own, axis=1))), "float32")

    def forget(self) -> None:
        """Notes that there was a batch, so that what was read before is old."""
        self._variables.forget()

    def group_of(self, name: str) -> int:
        """Returns the number of the group that the layer of this name is in."""
        return self._group_of[name]

    @property
    def state(self) -> State:
        """The state of the law, as NumPy arrays."""
        return State(*self._variables.read("state"))

    @state.setter
    def state(self, state: State) -> None:
        self._variables.assign("state", np.stack(np.broadcast_arrays(*state)))
        if self._pushes is not None:
            self._pushes.follow(self.state.output)

    @property
    def plan(self) -> Plan:
        """What the law is told, as NumPy arrays."""
        return Plan(*self._variables.read("plan"))

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._variables.assign("plan", np.stack(np.broadcast_arrays(*plan)))

    def spare(self, names: Collection[str], among: Iterable[str]) -> None:
        """Pushes the layers of these names no more, and all others `among` again."""
        if self._pushes is not None:
            self._pushes.spare(names, among, self.state.output)

    def begin_run(self) -> None:
        """Begins a new ramp at the present figures. The settings go on."""
        old = self.state
        fresh = State(*np.zeros_like(np.stack(old)))
        kept = {"integral": old.integral, "output": old.output, "recent": old.recent}
        self.state = fresh._replace(**kept)

    def release(self, group: int) -> None:
        """Takes the push of a group away, by the group's number."""
        state = self.state
        for numbers in (state.integral, state.output, state.recent):
            numbers[group] = self.law.low
        self.state = state

    def plan_run(self, left: int, reach_by: float) -> None:
        """Sets the ramp, and the unit of time, by the length of the run.

        Args:
            left: How many batches it has left.
            reach_by: The part of it after which the ramp ends.
        """
        total = float(np.max(self.state.batches)) + left
        unit = np.clip(total / _UNITS, 1, _LONGEST_UNIT)
        plan = self.plan
        ones = np.ones_like(plan.unit)
        self.plan = plan._replace(unit=unit * ones, ramp=reach_by * total * ones)

    def numbers(self) -> list[np.ndarray]:
        """Returns all that a resumed run needs."""
        kept = [self._variables.read(name) for name in ("state", "plan")]
        if self._pushes is not None:
            kept += self._pushes.numbers()
        return kept

    def resume(self, numbers: Sequence[np.ndarray]) -> None:
        """Goes on from the `numbers` of an earlier run."""
        for name, matrix in zip(("state", "plan"), numbers, strict=False):
            self._variables.assign(name, matrix)
        if self._pushes is not None:
            self._pushes.resume(numbers[2:])

    def values(self) -> dict[str, float]:
        """Returns the setting of each layer by name: a penalty's weight or a target."""
        if self._pushes is not None:
            return self._pushes.weights()
        outputs = self.state.output
        return {name: float(outputs[i]) for name, i in self._group_of.items()}

    def pushes(self) -> np.ndarray:
        """Returns how hard each group is pushed: in parts of the loss's own push."""
        return push_weights.to_push(self.state.output)

    def unpushed(self) -> list[str]:
        """Returns the names of layers that no gradient of the loss moves."""
        return [] if self._pushes is None else self._pushes.unpushed()

    def _start_at_targets(self):
        first = [names[0] for names in self.groups]
        targets = {w.name: w.layer.target for w in self.watched}
        output = np.array([targets[name] for name in first])
        state = State(*np.zeros((len(State._fields), len(first))))
        integral = (1 - self.law.feedforward) * output
        self.state = state._replace(integral=integral, output=output, recent=output)
