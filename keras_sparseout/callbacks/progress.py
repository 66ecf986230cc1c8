"""How far training has come: batches of the epoch, and steps of the optimizers."""

import keras

from keras_sparseout.backend import variables
from keras_sparseout.layers.nested_layers import held_by

# Loss scaling skips a few steps at the beginning, until the scale is small enough.
_BATCHES_OF_LOSS_SCALING = 32


class Progress:
    """Counts batches, within an epoch and over all epochs.

    With `steps_per_execution` above 1 Keras numbers the last execution of an epoch as
    if it were full. Where the number of batches is known, this class puts it right.
    Where it is not, `correct` takes the true one.

    Attributes:
        epoch: Index of the epoch.
        batches: How many batches of it are over.
        counted: The same by Keras' count, which adds those that an execution lacks.
        before: How many batches were over when the epoch began, with earlier runs.
        run: How many batches of this run were over when the epoch began.
        first: Index of the first epoch of the run, before an interruption too.
        steps: How many batches an epoch has, None if unknown.
    """

    def __init__(self) -> None:
        self.epoch = self.batches = self.counted = self.before = self.run = 0
        self.steps: int | None = None
        self._per_execution = 1
        self.first, self._epochs, self._interrupted = 0, -1, (0, 0)

    @property
    def total(self) -> int:
        """How many batches are over, with those of earlier runs."""
        return self.before + self.batches

    @property
    def of_run(self) -> int:
        """How many batches of this run are over."""
        return self.run + self.batches

    @property
    def of_whole_run(self) -> int:
        """The same with the batches that are known from before an interruption."""
        return self._interrupted[0] + self.of_run

    @property
    def position(self) -> float:
        """Where training is, in epochs; NaN if the length of an epoch is unknown."""
        steps = self.steps or float("nan")
        return self.epoch + self.batches / steps

    @property
    def mean_steps(self) -> int | None:
        """How many batches the epochs of the run before this one had, in the mean.

        None if there was none.
        """
        batches, epochs = self._interrupted
        epochs += self._epochs
        return round((batches + self.run) / epochs) or None if epochs > 0 else None

    @property
    def after_epoch(self) -> tuple[int, int, int]:
        """What `resume` needs if the run is interrupted after this epoch."""
        epochs = self._interrupted[1] + self._epochs + 1
        return self.first, self.of_whole_run, epochs

    def begin_run(self) -> None:
        """Notes that `fit` begins."""
        self.before, self.run = self.total, 0
        self.batches = self.counted = 0
        self._epochs, self._interrupted = -1, (0, 0)

    def resume(self, first: int, batches: int, epochs: int) -> None:
        """Notes in the first epoch that the run goes on with an interrupted one.

        Args:
            first: Index of the first epoch of that.
            batches: How many batches are known of it.
            epochs: In how many epochs these were.
        """
        self.first, self._interrupted = first, (batches, epochs)

    def begin_epoch(self, epoch: int, callback: keras.callbacks.Callback) -> None:
        """Notes that an epoch begins, in the `fit` that runs `callback`."""
        self.before, self.run = self.total, self.of_run
        self.epoch, self.batches, self.counted = epoch, 0, 0
        self._epochs += 1
        if not self._epochs:
            self.first = epoch
        self.steps = (callback.params or {}).get("steps")
        self._per_execution = getattr(callback.model, "steps_per_execution", 1)

    def trained_before(self, epoch: int) -> int:
        """How many batches the epochs before `epoch` had, 0 if it is unknown."""
        return epoch * (self.steps or 0)

    def end_batch(self, batch: int) -> None:
        """Notes that an execution is over, whose last batch has the index `batch`."""
        self.batches = self.counted = batch + 1
        steps = self.steps
        if steps and batch + 1 - self._per_execution < steps:
            self.batches = min(batch + 1, steps)

    def correct(self, batches: int) -> None:
        """Takes the true number of `batches`, as far as the execution allows it."""
        least = self.counted - self._per_execution + 1
        # It may be above `steps`: an execution goes on as long as there are data.
        self.batches = min(max(batches, least), self.counted)

    @property
    def may_be_off(self) -> bool:
        """Whether `batches` may be more than there were."""
        return self._per_execution > 1 and self.batches > 0


def is_resumed(model: keras.Model, epoch: int) -> bool:
    """Returns whether Keras let `fit` begin with `epoch`, as it resumes a run.

    `keras.callbacks.BackupAndRestore` has no public way to tell `fit` so, nor others.
    """
    return bool(epoch) and getattr(model, "_initial_epoch", None) == epoch


class OptimizerBatches:
    """Corrects a `Progress` by the batches that the optimizer was given.

    At first it sets how many batches were over in earlier runs. Make it when the first
    epoch has begun.

    Args:
        model: The model that is trained.
        progress: The `Progress`.
    """

    def __init__(self, model: keras.Model, progress: Progress) -> None:
        self._progress = progress
        before = progress.trained_before(progress.epoch)
        self._steps = StepCount(model, before)
        before = self._steps.batches_after(0) or before
        progress.before = max(progress.before, before)
        self._before_epoch = 0

    def begin_epoch(self) -> None:
        """Notes that an epoch begins."""
        self._before_epoch = self._steps.batches_after(self._progress.of_run)

    def correct(self) -> None:
        """Corrects how many batches of the epoch are over."""
        given = self._steps.batches_after(self._progress.of_run) - self._before_epoch
        if given > 0:
            self._progress.correct(given)


class StepCount:
    """Counts the updates of a model's weights, by the optimizer that makes them.

    That is `model.optimizer`, if it makes steps. A model with a training step of its
    own may have other optimizers as attributes, also in lists, dicts and models inside
    it. Then it is the optimizer that makes about one step a batch: not that of a
    discriminator, which makes five.

    Args:
        model: The model that is trained.
        expected: How many batches it was trained on before, as far as is known.
    """

    def __init__(self, model: keras.Model, expected: int = 0) -> None:
        self.model = model
        self.expected = expected
        self._followed: keras.optimizers.Optimizer | None = None
        self._start = {id(o): _count(o) for o in optimizers_of(model)}

    def after(self, batches: int) -> int | None:
        """Returns the count after `batches` batches of this run.

        None if no optimizer counts.
        """
        if self._followed is None and batches:
            self._followed = self._choose(batches)
        if self._followed is not None:
            return _count(self._followed)
        optimizers = optimizers_of(self.model)
        if batches >= max(map(_patience, optimizers), default=1):
            return None
        return _count(self._likely(optimizers))

    def batches_after(self, batches: int) -> int:
        """Returns how many batches the optimizer was given, 0 if none counts them.

        Args:
            batches: How many batches of this run are over.
        """
        if not self.after(batches):
            return 0
        optimizer = self._followed or self._likely(optimizers_of(self.model))
        # Where gradients are accumulated, "iterations" is less than this variable.
        held = getattr(optimizer, "variables", ())
        raw = [v for v in held if v.name == "iteration"]
        return int(variables.to_numpy(raw[0])) if raw else _count(optimizer)

    def _likely(
        self, optimizers: list[keras.optimizers.Optimizer]
    ) -> keras.optimizers.Optimizer | None:
        """Returns the optimizer to follow as long as none has made a step here."""
        own = getattr(self.model, "optimizer", None)
        others = [optimizer for optimizer in optimizers if _count(optimizer)]
        if _count(own) or not others:
            return own
        return min(others, key=lambda o: abs(_count(o) - self.expected))

    def _choose(self, batches: int) -> keras.optimizers.Optimizer | None:
        moved = {}
        for optimizer in optimizers_of(self.model):
            steps = _count(optimizer) - self._start.get(id(optimizer), 0)
            if steps:
                moved[id(optimizer)] = optimizer, steps
        own = moved.get(id(getattr(self.model, "optimizer", None)))
        if own or not moved:
            return own and own[0]
        return min(moved.values(), key=lambda pair: abs(pair[1] - batches))[0]


def optimizers_of(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Returns the optimizers of `model`: its own, and those among its attributes."""
    own = getattr(model, "optimizer", None)
    held = held_by(model, keras.optimizers.Optimizer)
    if not isinstance(own, keras.optimizers.Optimizer):
        return held
    return [own, *(optimizer for optimizer in held if optimizer is not own)]


def _count(optimizer: keras.optimizers.Optimizer | None) -> int:
    return 0 if optimizer is None else int(variables.to_numpy(optimizer.iterations))


def _patience(optimizer: keras.optimizers.Optimizer) -> int:
    """Returns after how many batches an optimizer in use has made a step."""
    scaling = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    accumulated = getattr(optimizer, "gradient_accumulation_steps", None) or 1
    return accumulated * (_BATCHES_OF_LOSS_SCALING if scaling else 1)
