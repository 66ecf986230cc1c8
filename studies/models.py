"""Image models that the paper's authors, or what they build on, took: LeNet-5 and WRN.

Each takes a function that makes the layer of noise for a name, and a layer that brings
images to mean 0 and variance 1. Functions named `..._places` return the names of noise.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import keras

# Takes the name of a layer, and makes it.
Regularizer = Callable[[str], keras.layers.Layer]
Place = Literal["between", "after"]

LENET_PLACES = ("conv1_noise", "conv2_noise", "dense1_noise", "dense2_noise")


def lenet5(
    input_shape: tuple[int, ...],
    classes: int,
    regularizer: Regularizer,
    scaling: keras.layers.Layer,
) -> keras.Model:
    """LeNet-5 with ReLU and max pooling, as in the authors' own tests.

    As there, noise comes directly behind each of the four ReLUs, before the pooling.
    """
    layers = keras.layers
    conv1, conv2, dense1, dense2 = map(regularizer, LENET_PLACES)
    return keras.Sequential(
        [
            keras.Input(input_shape),
            scaling,
            layers.Conv2D(6, 5, padding="same", activation="relu", name="conv1"),
            conv1,
            layers.MaxPooling2D(),
            layers.Conv2D(16, 5, activation="relu", name="conv2"),
            conv2,
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(120, activation="relu", name="dense1"),
            dense1,
            layers.Dense(84, activation="relu", name="dense2"),
            dense2,
            layers.Dense(classes, activation="softmax"),
        ]
    )


class WideResNetTraining(NamedTuple):
    """How wide residual networks are trained on CIFAR, with random crops and flips.

    Stochastic gradient descent with Nesterov's momentum. The learning rate is
    multiplied by `drop` after each of the epochs `drops`.

    Source: Zagoruyko & Komodakis (2016), "Wide Residual Networks",
        https://arxiv.org/abs/1605.07146; the 230 epochs and the drop after 200 are from
        the later code of Sparseout's authors.
    """

    epochs: int = 230
    batch: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    drops: tuple[int, ...] = (60, 120, 160, 200)
    drop: float = 0.2
    # Pixels that are added on each side before a random crop.
    padding: int = 4

    def optimizer(self, steps: int, epochs: int) -> keras.optimizers.Optimizer:
        """Returns the optimizer; in fewer epochs the rate drops earlier, in proportion.

        Args:
            steps: Number of batches in an epoch.
            epochs: How many are trained.
        """
        rates = [self.learning_rate * self.drop**i for i in range(len(self.drops) + 1)]
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
            [round(drop * epochs * steps / self.epochs) for drop in self.drops], rates
        )
        return keras.optimizers.SGD(schedule, momentum=self.momentum, nesterov=True)


WRN_TRAINING = WideResNetTraining()


def blocks_of(depth: int) -> list[str]:
    """Returns the names of the blocks of a wide residual network."""
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(
            "`depth` must be 6 n + 4, with n >= 1 blocks in each of three groups. "
            f"Received: depth={depth}. Give 10, 16, 22, 28, ..."
        )
    each = (depth - 4) // 6
    return [f"group{g}_block{b}" for g in (1, 2, 3) for b in range(1, each + 1)]


def wide_resnet_places(depth: int) -> tuple[str, ...]:
    """Returns the names of the layers of noise, one a block."""
    return tuple(f"{block}_noise" for block in blocks_of(depth))


def wide_resnet_activations(depth: int) -> tuple[str, ...]:
    """Returns the names of the activations that enter the second convolutions."""
    return tuple(f"{block}_relu2" for block in blocks_of(depth))


def wide_resnet(
    input_shape: tuple[int, ...],
    classes: int,
    regularizer: Regularizer,
    scaling: keras.layers.Layer,
    *,
    depth: int,
    width: int,
    place: Place,
) -> keras.Model:
    """WRN-depth-width: three groups of residual blocks of two convolutions each.

    Args:
        input_shape: Of an image.
        classes: Number of classes.
        regularizer: Makes the noise of a block.
        scaling: What brings images to mean 0 and variance 1.
        depth: Number of convolutions, 6 n + 4.
        width: Factor of the number of maps, which are 16, 32 and 64 in the groups.
        place: Of the noise in a block. "after": behind the second ReLU, on values >= 0,
            as in Zagoruyko & Komodakis (2016). "between": between the first convolution
            and the second BatchNormalization, on signed values, as in the later code of
            Sparseout's authors.
    """
    if place not in ("between", "after"):
        raise ValueError(
            f'`place` must be "between" or "after". Received: place={place!r}.'
        )
    parts = _Parts(WRN_TRAINING.weight_decay / 2)
    inputs = keras.Input(input_shape)
    x = parts.convolution(16, 3, 1, "stem")(scaling(inputs))
    for name in blocks_of(depth):
        group = int(name[len("group")])
        maps = 16 * 2 ** (group - 1) * width
        stride = 2 if group > 1 and name.endswith("block1") else 1
        x = _block(x, maps, stride, name, parts, regularizer(f"{name}_noise"), place)
    x = parts.activation("last_%s")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = parts.dense(classes)(x)
    return keras.Model(inputs, outputs, name=f"wrn_{depth}_{width}")


def _block(x, maps, stride, name, parts, noise, place):
    """A residual block with its activations first."""
    active = parts.activation(f"{name}_%s1")(x)
    y = parts.convolution(maps, 3, stride, f"{name}_conv1")(active)
    if place == "between":
        y = noise(y)
    y = parts.activation(f"{name}_%s2")(y)
    if place == "after":
        y = noise(y)
    y = parts.convolution(maps, 3, 1, f"{name}_conv2")(y)
    if x.shape[-1] != maps or stride > 1:
        x = parts.convolution(maps, 1, stride, f"{name}_shortcut")(active)
    return keras.layers.Add(name=f"{name}_sum")([x, y])


class _Parts:
    """Makes layers whose weights all decay.

    The decay is a penalty, so that it goes through the momentum. `weight_decay` of the
    optimizers of Keras does not: it is another rule, a tenth as strong at momentum 0.9.
    """

    def __init__(self, factor):
        self._factor = factor

    def _decay(self):
        return keras.regularizers.L2(self._factor)

    def convolution(self, maps, size, stride, name):
        return keras.layers.Conv2D(
            maps,
            size,
            stride,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=self._decay(),
            name=name,
        )

    def activation(self, name):
        """BatchNormalization, then ReLU; %s in `name` is which of them it is."""
        norm = keras.layers.BatchNormalization(
            momentum=0.9,
            epsilon=1e-5,
            gamma_regularizer=self._decay(),
            beta_regularizer=self._decay(),
            name=name % "norm",
        )
        relu = keras.layers.ReLU(name=name % "relu")
        return lambda x: relu(norm(x))

    def dense(self, classes):
        return keras.layers.Dense(
            classes,
            activation="softmax",
            kernel_regularizer=self._decay(),
            bias_regularizer=self._decay(),
        )
