"""A callback that sets the knobs of adjustable layers by the training step."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import keras
from keras import ops

from keras_sparseout.callbacks import callback_list, csv_columns, knobs, log_keys
from keras_sparseout.callbacks.callback_copies import CopiedCallback
from keras_sparseout.callbacks.callback_list import Logs
from keras_sparseout.callbacks.progress import Progress, StepCount, optimizers_of
from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.measure.watched_layer import WatchedLayer
from keras_sparseout.utils import validation

Schedule: TypeAlias = (
    keras.optimizers.schedules.LearningRateSchedule | Callable[[int], float]
)

_CHECKS = {
    "rate": validation.check_rate,
    "q": validation.check_q,
    "weight": validation.check_weight,
}


class SparseoutScheduler(CopiedCallback):
    """Sets rate, q or weight of adjustable layers before each batch, by a schedule.

    For example, this warms the rate up from 0 to 1/2 in the first 1000 steps, and
    anneals q:

        SparseoutScheduler(
            rate=lambda step: min(0.5, step / 2000),
            q=keras.optimizers.schedules.PolynomialDecay(2.0, 10_000, 1.0),
        )

    The step is `model.optimizer.iterations` before the batch: how many batches the
    model was trained on. So a resumed run continues the schedule. It counts updates of
    the weights: with `gradient_accumulation_steps=4` four batches are one step, and a
    batch that loss scaling skips does not count. With `steps_per_execution=4` the
    scheduler reads and applies the schedule before every fourth batch.

    A model with its own training step may keep other optimizers as attributes, also in
    lists, dicts and models inside it. If `model.optimizer` makes no steps, the
    scheduler follows the one that makes about one step a batch. If there is none, it
    counts the batches itself and warns. A resumed run then continues the schedule only
    if the number of batches in an epoch is known.

    If the model makes layers in its first batch, they are set from the second batch on.
    Build the model before, for example by calling it once, to set them at once.

    At the end of each epoch it puts the values into `logs`, as `rate/<layer>`,
    `q/<layer>` and `weight/<layer>`, for the callbacks after it in the list. The name
    of a nested layer is its path, "encoder/drop".

    Args:
        rate: Schedule of the drop rate of layers that have one: a
            `keras.optimizers.schedules.LearningRateSchedule`, or a function that takes
            the step, an int, and returns a number. None: the rate does not change.
        q: Schedule of their exponent.
        weight: Schedule of the weight of `keras_sparseout.ActivationPenalty` layers.
        layers: The layers to set: a list of layers of the model, their names or paths,
            regular expressions that match them, or types. None: for each knob, all
            adjustable layers that have it. This includes Bridgeout, whose weights are
            much smaller than activations: name the other layers if a model has it.
        verbose: 1 to print once what is set, 0 for nothing.

    Raises:
        ValueError: if nothing is given to schedule, a schedule can't be called or
            returns a number out of range, or (as training begins) a layer is not
            adjustable, none is found, or the model has no optimizer.

    Example:

    >>> layer = keras_sparseout.Sparseout(0.0, q=1.5, adjustable=True, name="hidden")
    >>> model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> scheduler = SparseoutScheduler(rate=lambda step: min(0.5, step / 10))
    >>> x, y = np.ones((32, 4)), np.ones((32, 1))
    >>> history = model.fit(
    ...     x, y, batch_size=8, epochs=3, verbose=0, callbacks=[scheduler]
    ... )
    SparseoutScheduler: rate of hidden
    >>> history.history["rate/hidden"]
    [0.3, 0.5, 0.5]
    """

    _shared = ("layers", "schedules")

    def __init__(
        self,
        *,
        rate: Schedule | None = None,
        q: Schedule | None = None,
        weight: Schedule | None = None,
        layers: LayerChoice | Sequence[LayerChoice] | None = None,
        verbose: int = 1,
    ) -> None:
        super().__init__()
        self.schedules = _check_schedules({"rate": rate, "q": q, "weight": weight})
        self.layers = layer_selection.check_layers(layers)
        self.verbose = verbose
        self._forget()

    def _forget(self):
        self._beside: list[keras.callbacks.Callback] = []
        self._begin_run()

    def _begin_run(self):
        self._scheduled: dict[str, list[WatchedLayer]] = {}
        self._progress = Progress()
        self._count: StepCount | None = None
        self._settled = self._described = self._warned = False

    def log_keys(self) -> set[str]:
        """Returns the keys that it may put into `logs`."""
        return {f"{k}/{w.name}" for k, ws in self._scheduled.items() for w in ws}

    def on_train_begin(self, logs: Logs = None) -> None:
        if not optimizers_of(self.model):
            raise ValueError(
                "`optimizer` of the model must be set, since SparseoutScheduler "
                "follows its count of steps. Received: optimizer=None. Compile the "
                'model with one, for example model.compile("adam", "mse").'
            )
        self._beside = callback_list.callbacks_in_list()
        self._begin_run()
        try:
            self._scheduled = self._find_layers()
        except ValueError:
            if self.model.built:
                raise
            # Its first batch will make the layers.
        log_keys.check_other_callbacks(self, self._beside)
        if self.model.built:
            self._describe()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._progress.begin_epoch(epoch, self)
        if self._count is None:
            # Not when training begins, which may restore the optimizer.
            expected = self._progress.trained_before(epoch)
            self._count = StepCount(self.model, expected)

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        if self._scheduled:
            step = self._step()
            for knob, layers in self._scheduled.items():
                knobs.assign(layers, knob, self._value(knob, step))

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._progress.end_batch(batch)
        if self._settled:
            return
        self._settled = True
        before, self._scheduled = self._scheduled, self._find_layers()
        log_keys.check_model(self, logs)
        if self._scheduled != before:
            log_keys.check_other_callbacks(self, self._beside, begun=True)
        if self._scheduled != before or not self._described:
            self._describe()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is not None:
            csv_columns.keep_columns(self, self._beside)
            for knob, layers in self._scheduled.items():
                logs.update(knobs.values(layers, knob))

    def _find_layers(self) -> dict[str, list[WatchedLayer]]:
        return knobs.layers_to_schedule(self.model, self.layers, self.schedules)

    def _describe(self) -> None:
        self._described = True
        if self.verbose:
            names = {k: [w.name for w in ws] for k, ws in self._scheduled.items()}
            parts = [f"{knob} of {', '.join(names[knob])}" for knob in names]
            print("SparseoutScheduler: " + "; ".join(parts))

    def _step(self) -> int:
        """Returns the step to look up: updates of the weights before this batch."""
        if self._count is None:
            raise ValueError(
                "`on_epoch_begin` must be called before the first batch. Received: "
                "SparseoutScheduler that is in no epoch. Call the methods of "
                "keras.callbacks.CallbackList([scheduler], model=model) as fit does."
            )
        batches = self._progress.of_run
        step = self._count.after(batches)
        if step is not None:
            return step
        if not self._warned:
            self._warned = True
            warnings.warn(
                "SparseoutScheduler: no optimizer of the model counts its steps, so "
                "the batches are counted. Keep the optimizers that make the steps as "
                "attributes of the model, and a resumed run follows on.",
                stacklevel=2,
            )
        return self._count.expected + batches

    def _value(self, knob: str, step: int) -> float:
        """Returns the value of a schedule; raises if the knob can't have it."""
        value = self.schedules[knob](step)
        if tuple(getattr(value, "shape", (None,))) == ():
            value = ops.convert_to_numpy(value).item()
        try:
            return _CHECKS[knob](value)
        except ValueError as error:
            raise ValueError(
                f"{error} That was returned by the schedule of `{knob}` at step {step}."
            ) from None


def _check_schedules(schedules: Mapping[str, Schedule | None]) -> dict[str, Schedule]:
    """Returns `schedules` without those that are None."""
    given = {knob: s for knob, s in schedules.items() if s is not None}
    if not given:
        raise ValueError(
            "At least one of `rate`, `q` and `weight` must have a schedule. Received: "
            "rate=None, q=None, weight=None. Give for example "
            "rate=lambda step: min(0.5, step / 1000)."
        )
    for knob, schedule in given.items():
        if not callable(schedule):
            raise ValueError(
                f"`{knob}` must be a LearningRateSchedule of "
                "keras.optimizers.schedules or a function of the step. Received: "
                f"{knob}={schedule!r}. Give for example {knob}=lambda step: "
                f"{'min(0.5, step / 1000)' if knob == 'rate' else '1 + 1 / (1 + step)'}"
                ", or a number to the layer itself."
            )
    return given
