"""Everything that is TensorFlow's own. Other rooms import it from here.

There is one folder for each back end of Keras, so far TensorFlow's alone. Another one
joins with a folder of the same modules, and with a choice here by
`keras.backend.backend()`.
"""

from keras_sparseout.backend.tensorflow import (
    compiling,
    convolutions,
    datasets,
    event_files,
    files,
    gradients,
    graph,
    numerics,
    operation_macs,
    powers,
    random,
    tensors,
    tracing,
    train_step,
    unknown_rank,
    variables,
)

__all__ = [
    "compiling",
    "convolutions",
    "datasets",
    "event_files",
    "files",
    "gradients",
    "graph",
    "numerics",
    "operation_macs",
    "powers",
    "random",
    "tensors",
    "tracing",
    "train_step",
    "unknown_rank",
    "variables",
]
