"""Convolutions with the channels before the positions, on any machine."""

import keras
from keras import layers as kl


class ChannelsFirst(kl.Conv2D):
    """Conv2D of data in channels_first, which TensorFlow has not on each CPU."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, data_format="channels_first", **kwargs)

    def convolution_op(self, inputs, kernel):
        outputs = keras.ops.conv(
            keras.ops.moveaxis(inputs, 1, -1), kernel, data_format="channels_last"
        )
        return keras.ops.moveaxis(outputs, -1, 1)
