"""What is said of a floor of accuracy."""

from keras_sparseout.callbacks.control.messages import ControllerMessages


def say_stopped(
    messages: ControllerMessages, subject: str, figure: float, target: float, why: str
) -> None:
    """Prints that a target was given up for the floor.

    Args:
        messages: What the controller says.
        subject: What was controlled, for example "hoyer of hidden".
        figure: What it came to.
        target: The target.
        why: What broke the floor beyond that.
    """
    messages.print(f"{subject} stopped at {figure:.3f} of {target:g}: {why}")


def say_restored(
    messages: ControllerMessages, epoch: int, why: str, averaged: bool
) -> None:
    """Prints that the model has the weights of an earlier epoch, counted from 1.

    Args:
        messages: What the controller says.
        epoch: The epoch.
        why: What broke the floor in the last one.
        averaged: Whether these are averages, which its validation saw.
    """
    messages.print(
        f"the model has the weights of epoch {epoch} again, the sparsest that kept the "
        f"floor. In the last epoch {why}"
    )
    if averaged:
        messages.print(
            "these weights are the averages that the validation of that epoch saw. The "
            "next figures are of the weights that it had in training"
        )


def say_begun_late(
    messages: ControllerMessages, subject: str, figure: float, target: float, epoch: int
) -> None:
    """Prints that most of the run passed before the floor was kept, from 1 on."""
    messages.print(
        f"{subject} came to {figure:.3f} of {target:g}: epoch {epoch} was the first "
        "that kept the floor, and nothing was moved before. Give more epochs, or a "
        "lower floor"
    )


def warn_of_no_validation(messages: ControllerMessages, given: str) -> None:
    """Warns that an epoch was not validated, and none before it.

    Args:
        messages: What the controller says.
        given: The floor, as in a call.
    """
    messages.warn(
        f"nothing is moved until an epoch is validated, for {given}. Give fit "
        "validation_data, if it has none",
        about=("floor", "validation"),
    )


def warn_of_no_epoch(messages: ControllerMessages, floor: str, best: str) -> None:
    """Warns that no epoch kept the floor, so that nothing was moved."""
    messages.warn(
        f"no epoch kept the floor, {floor}, so nothing was moved. The best was "
        f"{best}. Give more epochs, or a lower floor",
        about=("floor", ""),
    )


def warn_of_last_epoch(messages: ControllerMessages) -> None:
    """Warns that a resumed run has only the epoch left in which a floor looks."""
    messages.warn(
        "nothing is moved in the one epoch that is left of the resumed run: its floor "
        "begins anew, and does not push in its first epoch. Give more epochs",
        about=("floor", "last"),
    )
