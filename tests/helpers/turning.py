"""Candidates for worker processes, without anything heavy."""

RAN = []


def candidates(names):
    """Candidates that note who ran."""
    return {name: lambda name=name: RAN.append(name) for name in names}


def ran():
    return RAN


def fail(**arguments):
    raise ValueError("no good")


def broken(**arguments):
    return {"broken": fail}


def noisy():
    print("a library says something")
    return "answer"
