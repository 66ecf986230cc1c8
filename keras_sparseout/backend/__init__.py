"""Everything that is TensorFlow's own. Other rooms import it from here.

There is one folder for each back end of Keras, so far TensorFlow's alone. Another one
joins with a folder of the same modules, and with a choice here by
`keras.backend.backend()`.
"""

from keras_sparseout.backend.tensorflow import (
    compiling,
    event_files,
    files,
    numerics,
    tracing,
    train_step,
)

__all__ = ["compiling", "event_files", "files", "numerics", "tracing", "train_step"]
