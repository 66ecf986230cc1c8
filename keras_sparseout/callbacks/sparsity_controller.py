"""SparsityController: asks for a sparsity, and gets it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from keras_sparseout import plots
from keras_sparseout.callbacks.callback_list import Logs
from keras_sparseout.callbacks.control import arguments, control_keys
from keras_sparseout.callbacks.control.accuracy_limits import MinMetric
from keras_sparseout.callbacks.control.actuators import ActuatorName, setting_key
from keras_sparseout.callbacks.control.asked import Asked
from keras_sparseout.callbacks.control.choice import ControlChoice
from keras_sparseout.callbacks.control.controlled_layers import ControlledLayers
from keras_sparseout.callbacks.control.messages import ControllerMessages
from keras_sparseout.callbacks.control.penalty_push import Kind
from keras_sparseout.callbacks.control.run_backup import check_folder
from keras_sparseout.callbacks.control.run_length import RunLength
from keras_sparseout.callbacks.control.upkeep import Upkeep
from keras_sparseout.callbacks.figure_sources import TrainingSteps, not_begun
from keras_sparseout.callbacks.measuring_callback import MeasuringCallback
from keras_sparseout.callbacks.sparsity_tracker import SparsityTracker
from keras_sparseout.measure import layer_selection
from keras_sparseout.measure.layer_selection import LayerChoice
from keras_sparseout.measure.probe_data import ProbeData
from keras_sparseout.metrics.get import Metric
from keras_sparseout.utils import validation
from keras_sparseout.utils.types import Data, PathLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class SparsityController(MeasuringCallback):
    """Gives the activations the sparsity that is asked for, on any model.

    By default it pushes the layers by penalties, inside the training step: the model
    needs no layers of this package, and has nothing of the controller afterwards. The
    gradient of the loss with respect to the activations x of a layer becomes

        g + m (|g| / |dP/dx|) dP/dx

    with P the mean penalty of the vectors of x, |g| and |dP/dx| moving means of the
    norms, and m the multiplier. A PI controller of setpoint minus figure moves it at
    each batch. The setpoint rises on a ramp to the target. The loss that `fit` shows
    stays that of the model. Where the model has layers with `adjustable=True`, it moves
    these: q or rate of `Sparseout`, the weight of `ActivationPenalty`, or with
    "threshold" the target of `TargetSparsity`.

    The target holds for training batches, with the weights as they move. With probe
    data `x` it holds for these, at inference: after each epoch the setpoint moves
    toward the gap between the two.

    At the end of each epoch it puts these into `logs`, for the callbacks after it:
    `<metric>/<layer>`, the figure of the epoch's training batches, with `x` also
    `val_<metric>/<layer>` (where a tracker has the same key, its figure stays); the
    setting, for example `q/<layer>`, `penalty/<layer>`, or `target/<layer>` of
    thresholds; `error/<layer>`, target minus figure. An epoch without batches has
    neither figure nor error, except those of `x`.

    Once the loss is not finite, it changes nothing any more. If `fit` raises, nothing
    of this callback is in the model: its hooks are there only while a step is traced.

    With `x` it recomputes the moving statistics of BatchNormalization layers for its
    own figures, and at the end of training for the model. Without `x` a line says if
    they lag. With `keras.callbacks.BackupAndRestore` behind it, and `backup_dir` where
    that is needed, a resumed run equals one that was not interrupted. But q, rate and
    weight without a floor count dead units anew.

    Args:
        target: The figure asked for: a number for all layers, or a dict of numbers by
            name of a layer, which then also chooses the layers.
        metric: "zero_fraction", "hoyer", "gini", "population_sparseness" or "pq_index",
            or a function f(x) that rises with sparsity. "zero_fraction" works only
            where activations are exactly 0, as after ReLU. "needless_macs" is the share
            of the model's multiply-accumulates with a zero as a factor. All layers then
            share a setting, and a penalty pushes each by what its zeros save. The keys
            are `needless_macs`, `error/needless_macs` and `zero_fraction/<layer>`.
        x: Probe data, as for `SparsityTracker`; None for none.
        layers: The layers to control, as for `SparsityTracker`. None: all adjustable
            layers with the actuator; for a penalty those that a tracker would measure,
            without those that have a softmax or sigmoid, or whose output the model
            returns.
        actuator: "penalty", "threshold", "q", "rate" or "weight". None: what the model
            has adjustable layers for, or else "penalty".
        kind: The penalty, "l1" or "hoyer_square", as in `ActivationPenalty`. None for
            "hoyer_square".
        bounds: Least and largest setting. None: (0, 10) for the multiplier of a
            penalty, (0, 0.99) for the target of thresholds, (1, 4) for q, (0.05, 0.9)
            for rate, (0, 0.1) for weight.
        together: Whether all layers share one setting, moved until the mean over the
            layers is the target. Otherwise each layer has its own.
        reach_by: The part of the run after which the ramp of a penalty or of
            thresholds ends, > 0 and <= 1.
        every: After how many batches q, rate and weight move, and the figures are read;
            at the latest at the end of an epoch. None: at least 100 times in the run of
            `fit` where there are that many batches, and each 32 batches in long runs.
        sample_size: How many samples of each batch are measured, the first ones, on
            each replica. The gradients are those of as many, spread over the batch.
        gain: How strongly it reacts, > 0; 2 for twice as strongly. Lower it where the
            setting swings, raise it where the target is reached too late.
        dead_band: With q, rate and weight, errors of at most this size do not add up
            over the readings. The setting still answers to them in proportion.
        freeze_after: Number of epochs of the run after which the setting stays at the
            mean of the last ones; None for never.
        max_dead: Share of a layer's units that may be dead. Beyond it the controller
            warns, and makes the layer no sparser, except by thresholds. It decides
            after 256 vectors, counted over several epochs.
        max_loss_increase: How far the loss of an epoch may be above the lowest of the
            epochs so far, as a share of the size of that, > 0. The loss is `val_loss`,
            or `loss` if the logs of the first epoch that is judged, in which nothing is
            pushed, have no `val_loss`.
        min_metric: A name in Keras' epoch logs and its least value, for example
            ("val_accuracy", 0.87). Where less is better, by the rules of
            `keras.callbacks.EarlyStopping`, it is the largest value. Where Keras does
            not know, add "max" or "min": ("val_score", 0.3, "max"). With this or
            `max_loss_increase` nothing moves until an epoch kept them. Then each epoch
            is one try of a bisection. If the last one breaks them, the model gets the
            weights of the sparsest epoch that kept them, of which a copy is in memory.
        backup_dir: Folder of the state for a resumed run, with the actuators "penalty"
            and "threshold", and with a floor: that of `BackupAndRestore`. It is written
            as a whole after each epoch, removed when training is complete. None: none.
        batch_size: With `x`, how many samples of arrays run at once.
        steps: With `x`, how many batches of a data set to take; None for all.
        verbose: 1 to print what is controlled, what could not be read, and at the end
            the settings that were found; 0 for nothing.

    Raises:
        ValueError: if an argument is out of range, or (as training begins) there is no
            adjustable layer, a named one is not adjustable, a layer never has zeros, a
            run with a floor has one epoch, or the file in `backup_dir` is broken or of
            another control, or (after the first epoch, for a metric of validation the
            first one that is validated) the logs do not have what `min_metric` names.

    Source: Sohrabi et al. (2024), "On PI controllers for updating Lagrange multipliers
        in constrained optimization", https://arxiv.org/abs/2406.04558; Gallego-Posada
        et al. (2022), https://arxiv.org/abs/2208.04425.

    Example:

    >>> hidden = keras.layers.Dense(64, "relu", name="hidden")
    >>> model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> controller = SparsityController(0.7, verbose=0)
    >>> x, y = np.random.rand(256, 4), np.random.rand(256, 1)
    >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[controller])
    >>> sorted(controller.history)
    ['epoch', 'penalty/hidden', 'zero_fraction/hidden']
    """

    def __init__(
        self,
        target: float | Mapping[str, float],
        metric: Metric = "zero_fraction",
        *,
        x: Data | None = None,
        layers: LayerChoice | Sequence[LayerChoice] | None = None,
        actuator: ActuatorName | None = None,
        kind: Kind | None = None,
        bounds: tuple[float, float] | None = None,
        together: bool = False,
        reach_by: float = 0.5,
        every: int | None = None,
        sample_size: int = 16,
        gain: float = 1.0,
        dead_band: float = 0.002,
        freeze_after: int | None = None,
        max_dead: float = 0.5,
        max_loss_increase: float | None = None,
        min_metric: MinMetric | None = None,
        backup_dir: PathLike | None = None,
        batch_size: int = 256,
        steps: int | None = None,
        verbose: int = 1,
    ) -> None:
        self.metric, metrics = arguments.check_metric(metric)
        self.target = arguments.check_target(target, self.metric)
        chosen = layer_selection.check_layers(layers)
        if chosen is None and isinstance(target, Mapping):
            chosen = list(target)
        self._moved = arguments.check_actuator(actuator), kind, bounds
        self._found = actuator or "penalty", arguments.check_bounds(bounds, actuator)
        arguments.check_kind(kind, actuator)
        self.together = arguments.check_together(together, target, self.metric)
        self.reach_by = arguments.check_reach_by(reach_by)
        self.every = arguments.check_every(every)
        sample_size = validation.check_count("sample_size", sample_size)
        self.gain = validation.check_positive("gain", gain)
        self.dead_band = validation.check_share("dead_band", dead_band)
        self.freeze_after = arguments.check_freeze_after(freeze_after)
        self.max_dead = validation.check_share("max_dead", max_dead)
        self.max_loss_increase = arguments.check_max_loss_increase(max_loss_increase)
        self.min_metric = arguments.check_min_metric(min_metric)
        self.backup_dir = check_folder(backup_dir)
        data = None if x is None else ProbeData(x, batch_size=batch_size, steps=steps)
        self.verbose = verbose
        super().__init__(metrics, data, chosen, sample_size, in_steps=True)

    def _forget(self):
        super()._forget()
        self._messages = ControllerMessages()
        self._control: ControlledLayers | None = None
        self._made_choice: ControlChoice | None = None
        self._upkeep: Upkeep | None = None

    @property
    def _begun(self) -> tuple[ControlledLayers, TrainingSteps, Upkeep]:
        parts = self._control, self._training, self._upkeep
        if parts[0] is None or parts[1] is None or parts[2] is None:
            raise not_begun(self)
        return parts[0], parts[1], parts[2]

    @property
    def _asked(self) -> Asked:
        # Made anew, as another callback may have assigned attributes.
        actuator, kind, bounds = self._moved
        return Asked.of(self, actuator=actuator, kind=kind, bounds=bounds)

    @property
    def _choice(self) -> ControlChoice:
        # It lasts over several runs: what they share is compiled once.
        if self._made_choice is None:
            self._made_choice = ControlChoice(self._asked)
        return self._made_choice

    @property
    def actuator(self) -> ActuatorName:
        """What is moved. If it was left out, training shows it."""
        return self._found[0]

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and largest setting."""
        return self._found[1]

    @property
    def _run_length(self) -> RunLength:
        return RunLength(self._progress, self.every, self.params)

    @property
    def targets(self) -> dict[str, float]:
        """Dict of the targets by layer, or that of the whole model by its metric."""
        names = control_keys.with_target(self.metric, self._names)
        return arguments.targets_by_layer(self.target, names)

    def plot(self, *, path: PathLike | None = None) -> "Figure":
        """Draws the sparsity with its targets, and the settings, over the epochs.

        Args:
            path: File to write; its suffix sets the format.

        Returns:
            A `matplotlib.figure.Figure`.
        """
        return plots.control(
            self.history,
            self.targets,
            metric=self.metric,
            actuator=setting_key(self.actuator),
            # Those of a penalty are about its push, not its weight.
            bounds=None if self.actuator == "penalty" else self.bounds,
            path=path,
        )

    def log_keys(self) -> set[str]:
        """Returns the keys that it may put into `logs`.

        If a tracker in the list has one of them too, it belongs to the tracker.
        """
        figures = self.probe_keys() | self._figure_keys
        for other in self._beside:
            if isinstance(other, SparsityTracker):
                figures -= other.log_keys()
        settings = {f"{setting_key(self.actuator)}/{name}" for name in self._names}
        return figures | settings | {f"error/{name}" for name in self.targets}

    def probe_keys(self) -> set[str]:
        """Returns the keys of figures of probe data."""
        return {f"val_{key}" for key in self._figure_keys if self.data is not None}

    @property
    def _figure_keys(self) -> set[str]:
        asked = self.metric, self._names
        return {*control_keys.controlled(*asked), *control_keys.of_layers(*asked)}

    def on_train_begin(self, logs: Logs = None) -> None:
        self._messages = ControllerMessages(self.verbose)
        self._choice.begin_run(self._asked)
        self._begin()
        self._control = self._new_control()
        needs = self._choice.is_in_step, self._asked.has_floor
        kept = self.data, self.backup_dir, self._beside, self._messages
        self._upkeep = Upkeep(self, self._progress, *kept, *needs)
        if self._choice.stepping is not None:
            self._choice.stepping.begin_run()
        if self.model.built:
            self._control.figures.describe(self._names)

    def _new_control(self):
        told = self._messages, self.params
        return self._choice.control(self.model, self.metrics, *told)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        control, _, upkeep = self._begun
        # Not when training begins, as BackupAndRestore loads weights then.
        control.follow(self._watched, self._choice.stepping)
        self._begin_epoch(epoch)
        upkeep.resume(epoch, control)
        upkeep.begin_epoch(self._progress.total)
        control.begin_epoch(self._progress, self.freeze_after)
        if self._probe is not None and control.needs_probe:
            with upkeep.recomputed():
                control.figures.measure_probe(self._probe.read())
        control.shift_setpoints()
        # Forgets the figures, which the setpoints needed.
        control.begin_ramp()
        self._plan_steps()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._end_batch(batch, logs)
        if self._choice.stepping is not None:
            self._choice.stepping.forget()
        if not self._settled:
            if self._settle(logs):
                self._control = self._new_control()
            self._plan_steps()
            self._begun[0].figures.describe(self._names)
        control, training, _ = self._begun
        if self._log.unread and not training.is_checked:
            training.check_reached()
            self._leave_out(training)
        control.follow(self._watched, self._choice.stepping)
        control.check_loss(self._loss)
        # In an epoch that is shorter, at its last batch, if its length is known.
        if self._log.due(self._run_length.every):
            self._take_reading()
            if self._run_length.is_guess:
                self._plan_steps()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        control, training, upkeep = self._begun
        if not self._log.read_at and self._log.unread:
            self._take_reading()
        self._correct_progress()
        if self._log.unread:
            control.figures.units.add(training.read())
        with upkeep.recomputed():
            probed = None if self._probe is None else self._probe.read()
            figures = control.end_epoch(training.epoch_sums, probed, self._loss)
        control.judge(epoch, logs, upkeep.validated_weights)
        upkeep.end_epoch(epoch, control)
        self._log.end_epoch(control.figures.probed, logs)
        self._tell(figures, logs)

    def on_test_begin(self, logs: Logs = None) -> None:
        if self._upkeep is not None:
            self._upkeep.begin_validation()

    on_test_batch_begin = MeasuringCallback._begin_test_batch

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        if self._upkeep is not None:
            self._upkeep.end_test_batch()

    def on_test_end(self, logs: Logs = None) -> None:
        if self._upkeep is not None:
            self._upkeep.end_validation()

    def on_train_end(self, logs: Logs = None) -> None:
        self._messages.verbose = self.verbose
        if self._control is not None and self._upkeep is not None:
            self._upkeep.end_run(self._control, self._progress.total)

    def _after_training(self):
        if self._control is not None and self._upkeep is not None:
            self._upkeep.after_training(self._control, self._progress.total)

    def _arm(self, kind):
        super()._arm(kind)
        if kind == "test" and self._upkeep is not None:
            self._upkeep.begin_test_batch()

    def _take_reading(self):
        control, training, _ = self._begun
        self._correct_progress()
        now = self._run_length.now
        self._log.add(control.take(training.read(), self._loss, now))

    def _leave_out(self, measured):
        reasons = measured.left_out
        left_out = {name: reasons[name] for name in self._names if name in reasons}
        if left_out:
            self._messages.left_out(left_out)
            self._watch([w for w in self._watched if w.name not in left_out])

    def _plan_steps(self):
        """Tells the control in the step how long the run is."""
        if self._choice.stepping is not None and self._control is not None:
            ramp = self._control.ramp(self.reach_by)
            self._choice.stepping.plan_run(self._run_length.left, ramp)

    def _step_control(self):
        metric = next(iter(self.metrics.values()))
        return self._choice.in_step(self.model, self._selected, metric)

    def _select(self):
        watched = self._choice.layers(self.model)
        self._found = self._choice.actuator, self._choice.bounds
        if self._control is not None:
            self._control.figures.budget = self._choice.budget
        return watched
