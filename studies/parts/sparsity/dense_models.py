"""One hidden layer of 256 units on Fashion-MNIST: what the study `sparsity` trains."""

import keras
from keras import ops

from keras_sparseout import ActivationPenalty, Sparseout, TargetSparsity

UNITS = 256
# The layers that make the hidden activations sparse, as one layer of the model.
PLACE = "regularizer"
TASKS = ("classifier", "autoencoder")
# What `regularizer` makes, each with what its setting means.
METHODS = {
    "held": "q",
    "through": "q",
    "fraction": "q",
    "nothing": "always 0",
    "l1": "weight",
    "hoyer_square": "weight",
    "threshold": "share of zeros",
    "top_k": "share of zeros",
}
FRACTION = 0.75


@keras.saving.register_keras_serializable("studies")
class TopK(keras.layers.Layer):
    """Keeps the units of largest |x| of each sample and sets the others to 0.

        y_i = x_i  where |x_i| >= the k-th largest of |x_1|, ..., |x_n|,  else 0

    with k = n - round(zeros * n), in training and at inference. Gradients pass where x
    passes.

    Args:
        zeros: Share of a sample's units that is set to 0, a number >= 0 and < 1.
        **kwargs: `name`, `dtype`, as for every Keras layer.

    Raises:
        ValueError: if `zeros` is out of range.

    Source: Makhzani & Frey (2013), "k-Sparse Autoencoders",
        https://arxiv.org/abs/1312.5663
    """

    def __init__(self, zeros: float, **kwargs) -> None:
        super().__init__(**kwargs)
        if not 0 <= zeros < 1:
            raise ValueError(
                f"`zeros` must be >= 0 and < 1. Received: zeros={zeros!r}. It is a "
                "share: give 0.9 to keep a tenth of the units."
            )
        self.zeros = zeros

    def call(self, inputs):
        units = inputs.shape[-1]
        kept = max(1, units - round(self.zeros * units))
        magnitudes = ops.abs(inputs)
        least = ops.top_k(magnitudes, kept)[0][..., -1:]
        return ops.where(magnitudes >= least, inputs, 0)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "zeros": self.zeros}


def scaled_rate(rate: float, factor: float) -> float:
    """Returns the rate whose odds p / (1 - p) are `factor` times those of `rate`."""
    odds = factor * rate / (1 - rate)
    return odds / (1 + odds)


def regularizer(method: str, setting: float, rate: float) -> keras.Model:
    """Makes the layers behind the hidden layer.

    Methods that are not noise stand before Dropout of `rate`, if this is above 0.
    With "through" the derivative of the noise is taken. The multiplier held pulls the
    activations 2 / q times as hard, so its odds are multiplied by that.
    """
    if method == "held":
        return _named([Sparseout(rate, q=setting)])
    if method == "fraction":
        return _named([Sparseout(rate, q=setting, target_fraction=FRACTION)])
    if method == "through":
        rate = scaled_rate(rate, 2 / setting)
        return _named([Sparseout(rate, q=setting, stop_gradient=False)])
    makers = {
        "nothing": lambda setting: keras.layers.Identity(),
        "l1": ActivationPenalty,
        "hoyer_square": lambda weight: ActivationPenalty(weight, "hoyer_square"),
        "threshold": TargetSparsity,
        "top_k": TopK,
    }
    # At q = 2, which is Dropout.
    dropout = [Sparseout(rate, q=2.0)] if rate else []
    return _named([makers[method](setting), *dropout])


def _named(layers: list[keras.layers.Layer]) -> keras.Model:
    return keras.Sequential(layers, name=PLACE)


def build(
    task: str, activation: str, batch_norm: bool, behind: keras.layers.Layer
) -> keras.Model:
    """Makes and compiles a model with `behind` behind its hidden layer.

    The classifier has ten classes. The autoencoder has linear outputs and the squared
    error, as the Gaussian model of the theory. Their metric "loss_alone" is the loss
    without penalties.
    """
    pixels = 28 * 28
    hidden = [keras.layers.Dense(UNITS, name="hidden")]
    if batch_norm:
        hidden.append(keras.layers.BatchNormalization())
    hidden.append(keras.layers.Activation(activation))
    head, loss, metrics = _head(task, pixels)
    model = keras.Sequential([keras.Input((pixels,)), *hidden, behind, head])
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=metrics)
    return model


def _head(task: str, pixels: int):
    if task == "classifier":
        alone = keras.metrics.SparseCategoricalCrossentropy("loss_alone")
        return (
            keras.layers.Dense(10, activation="softmax"),
            "sparse_categorical_crossentropy",
            [alone, "accuracy"],
        )
    alone = keras.metrics.MeanSquaredError("loss_alone")
    return keras.layers.Dense(pixels), "mean_squared_error", [alone]
