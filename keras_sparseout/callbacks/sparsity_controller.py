"""SparsityController: asks for a sparsity, and gets it."""

import dataclasses
import warnings

import numpy as np

from keras_sparseout import plots
from keras_sparseout.callbacks.controlled_group import ENOUGH_FOR_DEAD, Group
from keras_sparseout.callbacks.feedback_loop import (
    RISING,
    check_actuator,
    check_bounds,
    check_metric,
    check_target,
)
from keras_sparseout.callbacks.knobs import adjustable_ones
from keras_sparseout.callbacks.sparsity_tracker import SparsityTracker
from keras_sparseout.callbacks.watcher import Watcher
from keras_sparseout.layers.activation_penalty import ActivationPenalty
from keras_sparseout.layers.sparseout import Sparseout
from keras_sparseout.measure import layer_selection, non_finite
from keras_sparseout.measure.layer_sums import add
from keras_sparseout.measure.probe_data import ProbeData
from keras_sparseout.measure.reading import read
from keras_sparseout.metrics.get import check_metrics
from keras_sparseout.utils import validation
from keras_sparseout.utils.validation import check_count

_ON_ITS_INPUT = (ActivationPenalty, Sparseout)


class SparsityController(Watcher):
    """Moves q until the activations are as sparse as asked, and holds them there.

    A closed loop: every few batches it measures the activations, as
    `keras_sparseout.SparsityTracker` does inside the training step, and moves the
    actuator of each layer. The layers have to be adjustable:

        Sparseout(0.5, q=2.0, adjustable=True)            # actuator "q" or "rate"
        ActivationPenalty(0.0, adjustable=True)           # actuator "weight"

    The target is that of training batches, on the weights as they move. With probe data
    `x` it is that of the probe data, as at inference: after each epoch the setpoint
    moves toward the gap between the two.

    At the end of each epoch it puts into `logs`, for the callbacks after it,

    - `<metric>/<layer>`: the figure of the epoch's training batches, and with `x`
      `val_<metric>/<layer>`;
    - `<actuator>/<layer>`: the setting, for example `q/<layer>`;
    - `error/<layer>`: target minus figure, of the probe data if there are any.

    A figure that a tracker in the list puts there under the same key is the tracker's.
    An epoch without any batch has neither figure nor error, but for those of `x`.

    With `steps_per_execution` it moves after whole executions. A model that is not
    built makes layers in its first batch; they are measured and moved from the second
    batch on.

    It stops pushing toward sparser, and says so, when more than `max_dead` of a layer's
    units are dead, and leaves everything as it is once the loss is not finite. Its
    state is saved with the weights: with `keras.callbacks.BackupAndRestore` a resumed
    run is the run that was not interrupted. Give that after this one where the length
    of the data is unknown: an epoch shorter than `every` is read only when it is over.

    Args:
        target: The figure asked for: a number for all layers, or a dict of numbers by
            name of a layer, which then also chooses the layers.
        metric: "zero_fraction", "hoyer", "gini", "population_sparseness" or "pq_index",
            or a function f(x) that rises with sparsity; "zero_fraction" only where
            activations are exactly 0, as after ReLU.
        x: Probe data, as for `SparsityTracker`; None for none.
        layers: The layers to control, as for `SparsityTracker`. None: all adjustable
            Sparseout or ActivationPenalty layers that have the actuator, and that the
            model calls where they can be read.
        actuator: "q" or "rate" of Sparseout layers, "weight" of `ActivationPenalty`
            layers.
        bounds: Least and largest setting; None for (1, 4) of q, (0.05, 0.9) of rate,
            (0, 0.1) of weight. Sparsity is not free: at q <= 1 accuracy falls.
        together: Whether all layers share one setting, moved until the mean over the
            layers is the target. Otherwise each layer has its own.
        every: After how many batches it measures and moves.
        sample_size: How many samples of each batch are measured, on each replica.
        gain: How strongly it reacts; 2 for twice as strongly. Lower it where the
            setting swings, raise it where the target is reached too late.
        dead_band: Errors of at most this size do not add up over the readings; the
            setting still answers to them in proportion.
        freeze_after: Number of epochs after which the setting stays at the mean of the
            last 8 readings or so; None for never.
        max_dead: Share of dead units, of a layer, beyond which it does not push toward
            sparser; told from at least 256 vectors, over several epochs if one has
            fewer, and then counted anew in a resumed run.
        batch_size: With `x`, how many samples of arrays run at once.
        steps: With `x`, how many batches of a data set to take; None for all.
        verbose: 1 to print what is controlled, what could not be reached, and at the
            end the settings that were found; 0 not to.

    Attributes:
        history: Dict of lists by key, one entry a reading; "epoch" tells when, in
            epochs.
        targets: Dict of the targets by layer.

    Raises:
        ValueError: if an argument is out of range, or (as training begins) there is no
            adjustable layer, one that is named is not, or a layer never has zeros.

    Source: the setting of Khan & Stavness (2019), https://arxiv.org/abs/1904.08050,
        turned around: there q is chosen and the sparsity observed.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((4,)),
    ...     keras.layers.Dense(64, activation="relu"),
    ...     keras_sparseout.Sparseout(0.5, q=2.0, adjustable=True, name="hidden"),
    ...     keras.layers.Dense(1),
    ... ])
    >>> model.compile("adam", "mse")
    >>> controller = SparsityController(0.7, every=8, verbose=0)
    >>> x, y = np.random.rand(256, 4), np.random.rand(256, 1)
    >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[controller])
    >>> sorted(controller.history)
    ['epoch', 'q/hidden', 'zero_fraction/hidden']
    """

    def __init__(
        self,
        target,
        metric="zero_fraction",
        *,
        x=None,
        layers=None,
        actuator="q",
        bounds=None,
        together=False,
        every=32,
        sample_size=16,
        gain=1.0,
        dead_band=0.002,
        freeze_after=None,
        max_dead=0.5,
        batch_size=256,
        steps=None,
        verbose=1,
    ):
        self.actuator = check_actuator(actuator)
        metrics = check_metrics([check_metric(metric)])
        [self.metric] = metrics
        self.target = check_target(target, bounded=self.metric in RISING)
        layers = layer_selection.check_layers(layers)
        if layers is None and isinstance(target, dict):
            layers = list(target)
        self.bounds = check_bounds(bounds, actuator)
        self.together = validation.check_bool("together", together)
        if together and isinstance(target, dict) and len(set(target.values())) > 1:
            raise ValueError(
                "`target` must be the same for all layers that are moved together. "
                f"Received: target={target!r}. Give one number, or together=False."
            )
        self.every = check_count("every", every)
        sample_size = check_count("sample_size", sample_size)
        self.gain = validation.check_positive("gain", gain)
        self.dead_band = validation.check_share("dead_band", dead_band)
        self.freeze_after = freeze_after
        if freeze_after is not None:
            check_count("freeze_after", freeze_after)
        self.max_dead = validation.check_share("max_dead", max_dead)
        data = None
        if x is not None:
            data = ProbeData(x, batch_size=batch_size, steps=steps)
        self.verbose = verbose
        metrics.update(check_metrics("dead_units"))
        super().__init__(metrics, data, layers, sample_size, in_steps=True)

    def _forget(self):
        super()._forget()
        self._groups, self._probed, self._stopped = [], None, False
        self._seen, self._nan_layers, self._broken = {}, set(), {}

    @property
    def targets(self):
        """Dict of the targets by layer."""
        if not isinstance(self.target, dict):
            return dict.fromkeys(self._names, self.target)
        return {name: self.target[name] for name in self._names}

    def plot(self, *, path=None):
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
            actuator=self.actuator,
            bounds=self.bounds,
            path=path,
        )

    def log_keys(self):
        """Returns the keys that it may put into `logs`, a set.

        What a tracker puts there too is left to the tracker.
        """
        figures = self.probe_keys() | {f"{self.metric}/{name}" for name in self._names}
        for other in self._beside:
            if isinstance(other, SparsityTracker):
                figures -= other.log_keys()
        settings = (self.actuator, "error")
        return figures | {f"{key}/{name}" for key in settings for name in self._names}

    def probe_keys(self):
        """Returns the keys of figures of probe data."""
        names = () if self.data is None else self._names
        return {f"val_{self.metric}/{name}" for name in names}

    def on_train_begin(self, logs=None):
        self._groups, self._probed, self._stopped = [], None, False
        self._seen, self._nan_layers, self._broken = {}, set(), {}
        self._begin()
        if self.model.built:
            self._describe()

    def on_epoch_begin(self, epoch, logs=None):
        if not self._groups:
            # Not before, as BackupAndRestore loads weights when training begins.
            self._groups = self._make_groups()
        self._begin_epoch(epoch)
        frozen = self.freeze_after is not None and epoch >= self.freeze_after
        self._moving = not (frozen or self._stopped)
        if frozen and not self._stopped:
            for group in self._groups:
                group.freeze()
        started = any(group.loop.readings for group in self._groups)
        if self._probe is not None and self._moving and started:
            figures = self._probed or self._measure_probe()
            for group in self._groups:
                group.loop.correct(group.mean("val_", figures))
        self._probed = None
        # Short epochs add up until they tell which units are dead.
        self._seen = {n: s for n, s in self._seen.items() if s[-1] < ENOUGH_FOR_DEAD}

    def on_train_batch_end(self, batch, logs=None):
        self._end_batch(batch, logs)
        if not self._settled:
            if self._settle(logs):
                self._groups = self._make_groups()
                self._described = False
            if not self._described:
                self._describe()
        if self._log.unread and not self._reached:
            self._reached = True
            self._training.check_reached()
            if self._leave_out(self._training):
                self._groups = self._make_groups()
        loss = self._loss
        if not self._stopped and not np.all(np.isfinite(loss)):
            self._stopped = True
            self._moving = False
            self._warn(
                f"the loss is {loss}: the settings stay what they are. Lower the "
                "learning rate, or ask for less"
            )
        # The last batch too where an epoch is shorter, if its length is known.
        every = min(self.every, self._progress.steps or self.every)
        if self._log.due(every):
            self._take_reading()

    def on_epoch_end(self, epoch, logs=None):
        if not self._log.read_at and self._log.unread:
            self._take_reading()
        self._correct_progress()
        self._broken = non_finite.invalid_layers(self.model, self._watched, self._loss)
        self._tell_of_broken()
        if self._log.unread:
            self._add_totals()
        figures = self._figures("", self._totals) if self._totals else {}
        probed = {}
        if self._probe is not None:
            self._probed = probed = self._measure_probe()
            figures.update(probed)
        self._log.end_epoch(probed, logs)
        prefix = "" if self._probe is None else "val_"
        for group in self._groups:
            figures.update(group.end_epoch(prefix, figures))
            if self._moving and group.unreachable():
                least, largest = group.loop.bounds
                low, high = group.reached
                self._warn(
                    f"{self.metric} of {group.name} can't be brought to "
                    f"{group.loop.target:g} with {self.actuator} in "
                    f"[{least:g}, {largest:g}]: it reached {low:.3f} to {high:.3f}. "
                    "Widen `bounds`, or change the target"
                )
        self._tell(figures, logs)

    def on_train_end(self, logs=None):
        if not self.verbose:
            return
        for group in self._groups:
            print(f"SparsityController: {group.conclusion()}")

    def _leave_out(self, measured):
        """Goes on without layers that can't be read; returns whether there were any."""
        reasons = measured.left_out
        names = [w.name for w in self._watched if w.name in reasons]
        if names:
            left_out = [f"{name} ({reasons[name]})" for name in names]
            if self.verbose:
                print("SparsityController: left out: " + validation.some_of(left_out))
            self._watch([w for w in self._watched if w.name not in reasons])
        return bool(names)

    def _describe(self):
        self._described = True
        if self.verbose:
            low, high = self.bounds
            wanted = ", ".join(f"{n} to {t:g}" for n, t in self.targets.items())
            print(
                f"SparsityController: {self.metric} of {wanted}, by {self.actuator} in "
                f"[{low:g}, {high:g}]"
            )

    def _select(self):
        found = layer_selection.all_layers(self.model)
        chosen = found
        if self.layers is not None:
            chosen = layer_selection.select(self.model, self.layers)
        named = self.layers is not None
        # Noise on weights, or inside a cell, is not on the activations that go in.
        acting = [w for w in chosen if isinstance(w.layer, _ON_ITS_INPUT)]
        watched = adjustable_ones(acting, self.actuator, named=named)
        others = [w.name for w in chosen if w not in watched]
        if not watched or (named and others):
            kind = "Sparseout(0.5"
            if self.actuator == "weight":
                kind = "ActivationPenalty(1e-4"
            if not found:
                raise ValueError(
                    "`layers` must be layers of the model, which has none yet. "
                    f"Received: layers={self.layers!r}. Call it once on a batch, for "
                    "example model(x[:1]), before fit."
                )
            received = f"layers={validation.some_of(others)}"
            if not named:
                received = f"layers=None, for {validation.some_of(others)}"
            raise ValueError(
                f"`layers` must be layers with an adjustable {self.actuator}. "
                f"Received: {received}. Put "
                f"{kind}, adjustable=True) after the activations that are meant."
            )
        names = {w.name for w in watched}
        if isinstance(self.target, dict) and names != set(self.target):
            raise ValueError(
                "`target` must have one number for each layer, by its name. Received: "
                f"target={self.target!r}, for {validation.some_of(sorted(names))}. "
                "Name just these."
            )
        # A penalty passes its input on, so its input is what is meant too.
        return [dataclasses.replace(w, side="input") for w in watched]

    def _make_groups(self):
        parts = [self._watched] if self.together else [[w] for w in self._watched]
        return [Group(part, self) for part in parts if part]

    def _measure_probe(self):
        return self._figures("val_", self._probe.measure(self.data))

    def _add_totals(self):
        """Adds the sums of the last batches to those before; returns them."""
        totals = self._training.totals()
        self._training.reset()
        for name, sums in totals.items():
            add(self._totals, name, sums)
            add(self._seen, name, sums)
        return totals

    def _take_reading(self):
        self._correct_progress()
        self._broken = non_finite.invalid_layers(self.model, self._watched, self._loss)
        figures = self._figures("", self._add_totals())
        seen = read(self._seen, self._watched, self.metrics, self._broken)
        for name in set(seen.nan_layers) - self._nan_layers:
            self._nan_layers.add(name)
            self._warn(f"the activations of {name} hold NaN, and do not move anything")
        self._tell_of_broken()
        dead = {w.name: seen.figures[f"dead_units/{w.name}"] for w in self._watched}
        # The last sum of the last metric is the number of vectors.
        counts = {name: sums[-1] for name, sums in self._seen.items()}
        for group in self._groups:
            if self._moving:
                group.check_zeros(figures)
                group.check_dead(dead, counts)
                group.move(figures)
        settings = {
            f"{self.actuator}/{w.name}": getattr(w.layer, self.actuator)
            for w in self._watched
        }
        self._log.add({**figures, **settings})

    def _figures(self, prefix, totals):
        figures = read(totals, self._watched, self.metrics, self._broken).figures
        return {
            f"{prefix}{self.metric}/{w.name}": figures[f"{self.metric}/{w.name}"]
            for w in self._watched
        }

    def _tell_of_broken(self):
        new = {n: c for n, c in self._broken.items() if n not in self._nan_layers}
        self._nan_layers.update(new)
        if not self._stopped:  # It has told of the loss.
            for cause in dict.fromkeys(new.values()):
                names = [name for name in new if new[name] == cause]
                names = validation.some_of(names)
                self._warn(f"{cause}: activations of {names} do not move anything")

    def _warn(self, text):
        warnings.warn(f"SparsityController: {text}.", stacklevel=3)
