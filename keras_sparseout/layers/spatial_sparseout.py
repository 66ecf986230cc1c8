"""Spatial Sparseout: drop-ins for keras.layers.SpatialDropout1D, 2D and 3D."""

from typing import Any, Literal

import keras

from keras_sparseout.layers.sparseout import Sparseout
from keras_sparseout.utils import validation


class _SpatialSparseout(Sparseout):
    """Sparseout with one draw for each sample and channel."""

    # Names of the dimensions that a subclass takes, with the channels last.
    _axes: tuple[str, ...] = ()

    def __init__(
        self,
        rate: float,
        q: float = 2.0,
        data_format: Literal["channels_last", "channels_first"] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        self._data_format = _check_data_format(data_format)
        spatial = (1,) * (len(self._axes) - 2)
        first = self._data_format == "channels_first"
        noise_shape = (None, None, *spatial) if first else (None, *spatial, None)
        if "noise_shape" in kwargs:
            raise ValueError(
                "`noise_shape` can't be set: this layer makes one draw for each sample "
                f"and channel. Received: noise_shape={kwargs['noise_shape']!r} for "
                f"{type(self).__name__}. Use Sparseout for another."
            )
        super().__init__(rate, q, noise_shape, seed, **kwargs)

    @property
    def data_format(self) -> Literal["channels_last", "channels_first"]:
        """Where the channels are."""
        return self._data_format

    def _check_shape(self, shape):
        if len(shape) != len(self._axes):
            raise ValueError(
                f"`inputs` of {type(self).__name__} must have {len(self._axes)} "
                f"dimensions, ({', '.join(self._axes)}) or with the channels first. "
                f"Received: inputs.shape={tuple(shape)}. Use SpatialSparseout1D, 2D or "
                "3D for 3, 4 or 5 dimensions, or Sparseout for any."
            )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["noise_shape"]
        return {**config, "data_format": self._data_format}


@keras.saving.register_keras_serializable("keras_sparseout")
class SpatialSparseout1D(_SpatialSparseout):
    """Sparseout with one draw for each sample and channel of a sequence.

    It is `keras.layers.SpatialDropout1D` with an exponent q: a drop-in for it, and the
    same as `Sparseout` with `noise_shape=(None, 1, None)`. All timesteps of a channel
    share one draw; the size of the noise still depends on |x| at each timestep.

    Args:
        rate: Drop rate in [0, 1].
        q: Exponent, >= 0; 2 is `keras.layers.SpatialDropout1D`.
        seed: Integer, or None for a random one.
        **kwargs: The other arguments of `Sparseout`, except `noise_shape`. The units of
            `target_fraction` are the channels, by their L2 norm in the sample.

    Input shape: `(samples, timesteps, channels)`.

    Output shape: Same as input.

    Raises:
        ValueError: if an argument is out of range or the input has another rank.

    Source: Tompson et al. (2015), https://arxiv.org/abs/1411.4280; Khan & Stavness
        (2019), https://arxiv.org/abs/1904.08050.

    Example:

    >>> layer = SpatialSparseout1D(0.5, q=1.5, seed=25)
    >>> y = layer(np.ones((1, 3, 2), "float32"), training=True)
    >>> np.round(y).tolist()
    [[[2.0, 0.0], [2.0, 0.0], [2.0, 0.0]]]
    """

    _axes = ("samples", "timesteps", "channels")

    def __init__(
        self, rate: float, q: float = 2.0, seed: int | None = None, **kwargs: Any
    ) -> None:
        validation.check_keywords(type(self).__name__, kwargs, Sparseout)
        super().__init__(rate, q, "channels_last", seed, **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["data_format"]
        return config


@keras.saving.register_keras_serializable("keras_sparseout")
class SpatialSparseout2D(_SpatialSparseout):
    """Sparseout with one draw for each sample and channel of an image.

    It is `keras.layers.SpatialDropout2D` with an exponent q: a drop-in for it, and the
    same as `Sparseout` with `noise_shape=(None, 1, 1, None)`. All pixels of a channel
    share one draw; the size of the noise still depends on |x| at each pixel.

    Args:
        rate: Drop rate in [0, 1].
        q: Exponent, >= 0; 2 is `keras.layers.SpatialDropout2D`.
        data_format: `"channels_last"` or `"channels_first"`. None:
            `keras.config.image_data_format()`.
        seed: Integer, or None for a random one.
        **kwargs: The other arguments of `Sparseout`, except `noise_shape`. The units of
            `target_fraction` are the channels, by their L2 norm in the sample.

    Input shape: `(samples, rows, cols, channels)`, or with the channels second.

    Output shape: Same as input.

    Raises:
        ValueError: if an argument is out of range or the input has another rank.

    Source: Tompson et al. (2015), https://arxiv.org/abs/1411.4280; Khan & Stavness
        (2019), https://arxiv.org/abs/1904.08050.

    Example:

    >>> layer = SpatialSparseout2D(0.5, q=1.5, seed=25)
    >>> y = layer(np.ones((1, 2, 2, 2), "float32"), training=True)
    >>> np.round(y).tolist()
    [[[[2.0, 0.0], [2.0, 0.0]], [[2.0, 0.0], [2.0, 0.0]]]]
    """

    _axes = ("samples", "rows", "cols", "channels")


@keras.saving.register_keras_serializable("keras_sparseout")
class SpatialSparseout3D(_SpatialSparseout):
    """Sparseout with one draw for each sample and channel of a volume.

    It is `keras.layers.SpatialDropout3D` with an exponent q: a drop-in for it, and the
    same as `Sparseout` with `noise_shape=(None, 1, 1, 1, None)`. All voxels of a
    channel share one draw; the size of the noise still depends on |x| at each voxel.

    Args:
        rate: Drop rate in [0, 1].
        q: Exponent, >= 0; 2 is `keras.layers.SpatialDropout3D`.
        data_format: `"channels_last"` or `"channels_first"`. None:
            `keras.config.image_data_format()`.
        seed: Integer, or None for a random one.
        **kwargs: The other arguments of `Sparseout`, except `noise_shape`. The units of
            `target_fraction` are the channels, by their L2 norm in the sample.

    Input shape: `(samples, dim1, dim2, dim3, channels)`, or with the channels second.

    Output shape: Same as input.

    Raises:
        ValueError: if an argument is out of range or the input has another rank.

    Source: Tompson et al. (2015), https://arxiv.org/abs/1411.4280; Khan & Stavness
        (2019), https://arxiv.org/abs/1904.08050.

    Example:

    >>> layer = SpatialSparseout3D(0.5, q=1.5, seed=25)
    >>> y = layer(np.ones((1, 2, 1, 1, 2), "float32"), training=True)
    >>> np.round(y).tolist()
    [[[[[2.0, 0.0]]], [[[2.0, 0.0]]]]]
    """

    _axes = ("samples", "dim1", "dim2", "dim3", "channels")


def _check_data_format(data_format):
    if data_format is None:
        return keras.config.image_data_format()
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(
            '`data_format` must be "channels_last" or "channels_first". Received: '
            f"data_format={data_format!r}. Leave it out for "
            "keras.config.image_data_format()."
        )
    return data_format
