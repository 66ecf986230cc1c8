"""How far training has come: batches of the epoch, and steps of the optimizers."""

import keras

from keras_sparseout.backend import variables

# Loss scaling skips a few steps at the beginning, until the scale is small enough.
_BATCHES_OF_LOSS_SCALING = 32


class Progress:
    """Counts batches, within an epoch and over all epochs.

    With `steps_per_execution` above 1 Keras numbers the last execution of an epoch as
    if it were full. Where the number of batches is known that is put right here; where
    it is not, `correct` takes the true one.

    Attributes:
        epoch: Index of the epoch.
        batches: How many batches of it are over.
        counted: How many there are by Keras' count, with those that an execution lacks.
        before: How many batches were over when it began.
        run: How many batches were over in this run of training when it began.
        steps: How many batches an epoch has, None if unknown.
    """

    def __init__(self):
        self.epoch = self.batches = self.counted = self.before = self.run = 0
        self.steps, self._per_execution = None, 1

    @property
    def total(self):
        """How many batches are over, those of earlier runs too."""
        return self.before + self.batches

    @property
    def of_run(self):
        """How many batches of this run are over."""
        return self.run + self.batches

    @property
    def position(self):
        """Where training is, in epochs; NaN if the length of an epoch is unknown."""
        steps = self.steps or float("nan")
        return self.epoch + self.batches / steps

    def begin_run(self):
        """Notes that `fit` begins."""
        self.before, self.run = self.total, 0
        self.batches = self.counted = 0

    def begin_epoch(self, epoch, callback):
        """Notes that an epoch begins, in the `fit` that runs `callback`."""
        self.before, self.run = self.total, self.of_run
        self.epoch, self.batches, self.counted = epoch, 0, 0
        self.steps = (callback.params or {}).get("steps")
        self._per_execution = getattr(callback.model, "steps_per_execution", 1)

    def trained_before(self, epoch):
        """How many batches the epochs before `epoch` had, 0 if it is unknown."""
        return epoch * (self.steps or 0)

    def end_batch(self, batch):
        """Notes that an execution is over, whose last batch has the index `batch`."""
        self.batches = self.counted = batch + 1
        steps = self.steps
        if steps and batch + 1 - self._per_execution < steps:
            self.batches = min(batch + 1, steps)

    def correct(self, batches):
        """Takes the true number of `batches`, as far as the execution allows it."""
        least = self.counted - self._per_execution + 1
        # More than `steps`, too: an execution goes on where the data do.
        self.batches = min(max(batches, least), self.counted)

    @property
    def may_be_off(self):
        """Whether `batches` may be more than there were."""
        return self._per_execution > 1 and self.batches > 0


class StepCount:
    """Counts the updates of a model's weights, by the optimizer that makes them.

    That is `model.optimizer`, if it makes steps. A model with a training step of its
    own may have optimizers among its attributes, also in lists, dicts and models inside
    it. Then it is the one that makes about one step a batch: not the discriminator's
    that makes five.

    Args:
        model: The model that is trained.
        expected: How many batches it was trained on before, as far as is known.
    """

    def __init__(self, model, expected=0):
        self.model = model
        self.expected = expected
        self._followed = None
        self._start = {id(o): _count(o) for o in optimizers_of(model)}

    def after(self, batches):
        """Returns the count, None if no optimizer counts.

        Args:
            batches: How many batches of this run are over.
        """
        if self._followed is None and batches:
            self._followed = self._choose(batches)
        if self._followed is not None:
            return _count(self._followed)
        optimizers = optimizers_of(self.model)
        if batches >= max(map(_patience, optimizers), default=1):
            return None
        return _count(self._likely(optimizers))

    def batches_after(self, batches):
        """Returns how many batches the optimizer was given, 0 if none counts them.

        Args:
            batches: How many batches of this run are over.
        """
        if not self.after(batches):
            return 0
        optimizer = self._followed or self._likely(optimizers_of(self.model))
        # Where gradients are accumulated, "iterations" is less than this variable.
        raw = [v for v in optimizer.variables if v.name == "iteration"]
        return int(variables.to_numpy(raw[0])) if raw else _count(optimizer)

    def _likely(self, optimizers):
        """Returns the optimizer to follow as long as none has made a step here."""
        own = getattr(self.model, "optimizer", None)
        others = [optimizer for optimizer in optimizers if _count(optimizer)]
        if _count(own) or not others:
            return own
        return min(others, key=lambda o: abs(_count(o) - self.expected))

    def _choose(self, batches):
        moved = {}
        for optimizer in optimizers_of(self.model):
            steps = _count(optimizer) - self._start.get(id(optimizer), 0)
            if steps:
                moved[id(optimizer)] = optimizer, steps
        own = moved.get(id(getattr(self.model, "optimizer", None)))
        if own or not moved:
            return own and own[0]
        return min(moved.values(), key=lambda pair: abs(pair[1] - batches))[0]


def optimizers_of(model):
    """Returns the optimizers of `model`: its own, and those among its attributes."""
    found, seen = {}, set()

    def visit(value):
        if id(value) in seen:
            return
        if isinstance(value, keras.optimizers.Optimizer):
            found.setdefault(id(value), value)
        elif isinstance(value, (list, tuple, set, dict)):
            seen.add(id(value))
            for item in value.values() if isinstance(value, dict) else value:
                visit(item)
        elif isinstance(value, keras.layers.Layer):
            seen.add(id(value))
            for item in list(vars(value).values()):
                visit(item)

    visit(getattr(model, "optimizer", None))
    visit(model)
    return list(found.values())


def _count(optimizer):
    return 0 if optimizer is None else int(variables.to_numpy(optimizer.iterations))


def _patience(optimizer):
    """After how many batches an optimizer that is used has made a step."""
    scaling = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    accumulated = getattr(optimizer, "gradient_accumulation_steps", None) or 1
    return accumulated * (_BATCHES_OF_LOSS_SCALING if scaling else 1)
