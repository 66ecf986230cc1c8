"""What is said of a control inside the training step."""

from collections.abc import Mapping

from keras_sparseout.callbacks.control.messages import ControllerMessages


def say_found(
    messages: ControllerMessages,
    subject: str,
    figure: float,
    target: float,
    values: Mapping[str, float],
) -> None:
    """Prints what a run came to, with the last settings."""
    settings = ", ".join(f"{key} = {value:.3g}" for key, value in values.items())
    messages.print(f"{subject} is {figure:.3f}, asked for {target:g}, at {settings}")


def say_too_sparse(
    messages: ControllerMessages,
    subject: str,
    figure: float,
    target: float,
    actuator: str,
    least: float,
) -> None:
    """Prints that the layers are sparser than asked, with the setting at its least."""
    messages.print(
        f"{subject} is {figure:.3f}, above the target {target:g}, with the {actuator} "
        f"at {least:g}, which can't make it denser. Ask for more, or leave these "
        "layers out"
    )


def say_too_few_batches(
    messages: ControllerMessages, subject: str, target: float, batches: int
) -> None:
    """Prints that the run was too short."""
    messages.print(
        f"the run has {batches} batches, which were too few to bring {subject} to "
        f"{target:g}. Give more epochs, or smaller batches"
    )


def warn_of_wrong_way(
    messages: ControllerMessages, subject: str, kind: str, level: float, start: float
) -> None:
    """Warns that a penalty makes the activations less sparse by the metric."""
    other = "l1" if kind == "hoyer_square" else "hoyer_square"
    messages.warn(
        f"the penalty {kind!r} moved {subject} the wrong way here, from {start:.3f} to "
        f'{level:.3f}, so it no longer pushes. Give kind="{other}"',
        about=("wrong way", subject),
    )


def warn_of_no_gradient(messages: ControllerMessages, layers: str) -> None:
    """Warns that no gradient comes through layers, so that nothing moves them."""
    messages.warn(
        f"no trainable weights come before {layers}, or no gradient of the loss comes "
        "to it, so a penalty can't move it. Leave it out of `layers`, or make layers "
        "before it trainable",
        about=("no gradient", layers),
    )
