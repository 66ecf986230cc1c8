"""One run of the study `images`: a model is built, trained and measured."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_sparseout import (
    ActivationPenalty,
    Sparseout,
    TargetSparsity,
    activation_sparsity,
)
from studies import matched_strength, models
from studies.data import fashion_cnn
from studies.parts.images.plan import Settings

BATCH = 64
EVALUATION_BATCH = 256
# Training images on which the noise is matched and measured.
SAMPLE = 512
NOISE_BATCH = 64
# Training images on which statistics are renewed, 16 batches.
RENEWED = 2048
RENEWED_BATCH = 128
# Test images on which sparsity is measured.
PROBED = 2000

Images = tuple[np.ndarray, np.ndarray]


class Built(NamedTuple):
    """A model, with names of its layers.

    Attributes:
        model: The model, compiled.
        noise: Names of the layers that add noise.
        watched: Names of the layers whose activations are measured, one a layer of
            noise: what it acts on, or in a block of "wrn" the second ReLU.
    """

    model: keras.Model
    noise: Sequence[str]
    watched: Sequence[str]


class Augmented(keras.utils.PyDataset):
    """Batches in a new order each epoch, with images moved and flipped at random.

    An image is moved by up to `padding` pixels each way; reflections fill the border.

    Source: Zagoruyko & Komodakis (2016), "Wide Residual Networks",
        https://arxiv.org/abs/1605.07146.
    """

    def __init__(self, images: Images, batch: int, padding: int, seed: int) -> None:
        super().__init__()
        (x, self._y), self._batch, self._padding = images, batch, padding
        edges = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        self._x = np.pad(x, edges, mode="reflect")
        self._size = x.shape[1:3]
        self._seed, self._epoch = seed, 0

    def __len__(self) -> int:
        return -(-len(self._y) // self._batch)

    def __getitem__(self, index: int) -> Images:
        order = self._rng(0).permutation(len(self._y))
        chosen = order[index * self._batch : (index + 1) * self._batch]
        rng = self._rng(1 + index)
        corners = rng.integers(2 * self._padding + 1, size=(len(chosen), 2))
        flipped = rng.integers(2, size=len(chosen))
        images = [
            self._cut(self._x[i], corner, flip)
            for i, corner, flip in zip(chosen, corners, flipped, strict=True)
        ]
        return np.stack(images), self._y[chosen]

    def _rng(self, part):
        return np.random.default_rng((self._seed, self._epoch, part))

    def _cut(self, image, corner, flip):
        (top, left), (height, width) = corner, self._size
        image = image[top : top + height, left : left + width]
        return image[:, ::-1] if flip else image

    def on_epoch_end(self) -> None:
        self._epoch += 1


class RenewStatistics(keras.callbacks.Callback):
    """Measures the statistics of BatchNormalization without noise before validation.

    In training they are moving means over batches with noise, whose variances are
    larger. Training itself does not use them.

    Source: Li, Chen, Hu & Yang (2019), "Understanding the Disharmony between Dropout
        and Batch Normalization by Variance Shift", https://arxiv.org/abs/1801.05134.
    """

    def __init__(self, built: Built, x: np.ndarray) -> None:
        super().__init__()
        self._x = x[:RENEWED]
        self._noise = [built.model.get_layer(name) for name in built.noise]
        kind = keras.layers.BatchNormalization
        self._norms = [each for each in built.model.layers if isinstance(each, kind)]

    def on_test_begin(self, logs=None):
        rates = [layer.rate for layer in self._noise]
        momenta = [norm.momentum for norm in self._norms]
        for layer in self._noise:
            layer.rate = 0
        starts = range(0, len(self._x), RENEWED_BATCH)
        for i, start in enumerate(starts):
            for norm in self._norms:
                # So that moving means become plain means.
                norm.momentum = i / (i + 1)
            self.model(self._x[start : start + RENEWED_BATCH], training=True)
        for norm, momentum in zip(self._norms, momenta, strict=True):
            norm.momentum = momentum
        for layer, rate in zip(self._noise, rates, strict=True):
            layer.rate = rate


def run(settings: Settings) -> dict[str, Any]:
    """Trains and measures one model."""
    data, classes = fashion_cnn.load_data(settings.data)
    (x, y), valid, test = data
    train = (x[: settings.images], y[: settings.images]) if settings.images else (x, y)
    keras.utils.set_random_seed(settings.seed)
    built = build(settings, train[0], classes)
    figures = fit(settings, built, train, valid)
    figures |= noise_figures(settings, built, train[0][:SAMPLE])
    accuracy, loss = evaluate(built.model, test)
    figures |= {"test_accuracy": accuracy, "test_loss": loss}
    return figures | sparsity_figures(built, test[0][:PROBED], figures["places"])


def regularizer(settings: Settings) -> models.Regularizer:
    """Returns what makes the layer of noise, with what is before it, for a name."""

    def noise(name):
        adjustable = settings.matched or settings.renewed
        return Sparseout(settings.rate, settings.q, adjustable=adjustable, name=name)

    before: dict[str, Callable[[float], keras.layers.Layer]] = {
        "threshold": TargetSparsity,
        "hoyer_square": lambda weight: ActivationPenalty(weight, "hoyer_square"),
    }
    if settings.method == "sparseout":
        return noise
    if settings.method not in before or settings.matched:
        raise ValueError(
            '`method` must be "sparseout", "threshold" or "hoyer_square", the latter '
            f"two not matched. Received: method={settings.method!r}, "
            f"matched={settings.matched}."
        )
    make = before[settings.method]
    return lambda name: keras.Sequential(
        [make(settings.setting), noise(None)], name=name
    )


def build(settings: Settings, x: np.ndarray, classes: int) -> Built:
    """Builds and compiles the model of a run, for training images `x`."""
    shape, noise = x.shape[1:], regularizer(settings)
    optimizer = "adam"
    if settings.model == "cnn":
        model = fashion_cnn.build_model(shape, classes, noise)
        places = watched = fashion_cnn.PLACES
    elif settings.model == "lenet5":
        model = models.lenet5(shape, classes, noise, standardization(x))
        places = watched = models.LENET_PLACES
    elif settings.model == "wrn":
        depth, width = settings.depth, settings.width
        options = {"depth": depth, "width": width, "place": settings.place}
        model = models.wide_resnet(shape, classes, noise, standardization(x), **options)
        places = models.wide_resnet_places(depth)
        # The same activations for both places of the noise.
        watched = models.wide_resnet_activations(depth)
        steps = -(-len(x) // models.WRN_TRAINING.batch)
        optimizer = models.WRN_TRAINING.optimizer(steps, settings.epochs)
    else:
        raise ValueError(
            '`model` must be "cnn", "lenet5" or "wrn". Received: '
            f"model={settings.model!r}."
        )
    loss = "sparse_categorical_crossentropy"
    # The loss of `fit` has penalties in it, this has not.
    metrics = ["accuracy", keras.metrics.SparseCategoricalCrossentropy("crossentropy")]
    model.compile(optimizer, loss, metrics=metrics)
    return Built(model, places, watched)


def standardization(x: np.ndarray) -> keras.layers.Layer:
    """Returns a layer that brings each channel of `x` to mean 0 and variance 1."""
    axes = (0, 1, 2)
    mean, variance = x.mean(axes, "float64"), x.var(axes, "float64")
    return keras.layers.Normalization(mean=mean, variance=variance)


def fit(
    settings: Settings, built: Built, train: Images, valid: Images
) -> dict[str, Any]:
    """Trains a model, and leaves it with the weights of its best epoch."""
    model = built.model
    # It never stops early. It brings back the weights of the first best epoch.
    keeper = keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=settings.epochs, restore_best_weights=True
    )
    callbacks: list[keras.callbacks.Callback] = [keeper]
    if settings.matched:
        callbacks.append(
            matched_strength.MatchedStrength(
                train[0][:SAMPLE], settings.rate, batch_size=NOISE_BATCH
            )
        )
    if settings.renewed:
        callbacks.append(RenewStatistics(built, train[0]))
    options = {"validation_data": valid, "epochs": settings.epochs, "verbose": 0}
    if settings.model == "wrn":
        recipe = models.WRN_TRAINING
        batches = Augmented(train, recipe.batch, recipe.padding, settings.seed)
        history = model.fit(batches, callbacks=callbacks, **options).history
    else:
        history = model.fit(
            *train, batch_size=BATCH, callbacks=callbacks, **options
        ).history
    best, losses = keeper.best_epoch, history["crossentropy"]
    if not np.isfinite(losses).all():
        raise ValueError(
            "The loss of each epoch must be finite. Received: crossentropies of "
            f"training {losses}. Training has diverged: --set a smaller rate."
        )
    return {
        "epoch": best + 1,
        "valid_accuracy": history["val_accuracy"][best],
        "valid_loss": history["val_crossentropy"][best],
        "train_loss": losses[best],
        "train_loss_without_noise": evaluate(model, [p[:PROBED] for p in train])[1],
        "curves": {
            "valid_accuracy": history["val_accuracy"],
            "valid_loss": history["val_crossentropy"],
            "train_loss": losses,
        },
    }


def evaluate(model: keras.Model, images: Sequence[np.ndarray]) -> tuple[float, float]:
    """Returns the accuracy and the cross-entropy on images, without noise."""
    logs = model.evaluate(
        *images, batch_size=EVALUATION_BATCH, verbose=0, return_dict=True
    )
    return logs["accuracy"], logs["crossentropy"]


def sparsity_figures(
    built: Built, x: np.ndarray, places: dict[str, dict[str, float]]
) -> dict[str, Any]:
    """Returns the means over the places, and adds to the figures of each place."""
    table = activation_sparsity(
        built.model, x, layers=list(built.watched), batch_size=EVALUATION_BATCH
    )
    columns = ("hoyer", "zeros", "dead", "rms", "needless_macs")
    rows = {row["layer"]: row for row in table.rows}
    for place, layer in zip(built.noise, built.watched, strict=True):
        places[place] |= {column: float(rows[layer][column]) for column in columns}
    means = {
        column: float(np.mean([place[column] for place in places.values()]))
        for column in ("hoyer", "zeros", "dead", "rms")
    }
    return {**means, "needless": 1 - table.effective_macs / table.macs}


def noise_figures(settings: Settings, built: Built, x: np.ndarray) -> dict[str, Any]:
    """Returns rates and mean added variances, of each place and as means over them.

    "strength" is the mean of |x|^q p / (1 - p) over the elements of the activations x
    that noise is added to, and "strength_at_2" is what q = 2 at the same x and the
    rate of the settings would add.
    """
    layers = [built.model.get_layer(name) for name in built.noise]
    # Without noise, a layer of noise puts out what comes into it.
    reader = keras.Model(built.model.inputs[0], [layer.output for layer in layers])
    sums = np.zeros((len(layers), 2))
    for start in range(0, len(x), NOISE_BATCH):
        read = reader(x[start : start + NOISE_BATCH], training=False)
        sums += [_power_sums(np.asarray(each), settings.q) for each in read]
    own, square = (sums / len(x)).T
    rates = [getattr(layer, "rate", settings.rate) for layer in layers]
    strengths = np.array([rate / (1 - rate) for rate in rates]) * own
    at_2 = settings.rate / (1 - settings.rate) * square
    columns = {"rate": rates, "strength": strengths, "strength_at_2": at_2}
    places = {
        name: {column: float(values[i]) for column, values in columns.items()}
        for i, name in enumerate(built.noise)
    }
    means = {column: float(np.mean(values)) for column, values in columns.items()}
    return {**means, "places": places}


def _power_sums(x, q):
    """Returns the sums, over samples, of the means of |x|^q and of x^2."""
    x = x.astype("float64").reshape(len(x), -1)
    # As Sparseout has it, which is 0 at x = 0 for any q.
    power = x**2 * (np.abs(x) + keras.config.epsilon()) ** (q - 2)
    return power.mean(1).sum(), (x**2).mean(1).sum()
