"""The rooms of the package: which one imports from which, and where TensorFlow is."""

import ast
from pathlib import Path

import pytest

import keras_sparseout

PACKAGE = Path(keras_sparseout.__file__).parent
# Each floor imports from the floors below it alone.
FLOORS = [
    {"callbacks", "models"},
    {"summary"},
    {"measure"},
    {"layers"},
    {"ops", "metrics", "plots"},
    {"backend"},
    {"utils"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def imports(file):
    """The modules that a file imports, with what it takes from them."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} has a relative import."
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def wrong_imports(package):
    """Each import that goes up or sideways, and each that passes the back end by."""
    for file in sorted(package.rglob("*.py")):
        room, *inside = file.relative_to(package).parts
        if not inside:  # The public names, and what keeps old paths working.
            continue
        for name in imports(file):
            top, *rest = name.split(".")
            if top == "tensorflow":
                if room != "backend":
                    yield f"{room} imports {name}"
            elif name.startswith("keras.src"):
                yield f"{room} imports {name}"
            elif top == "keras_sparseout" and rest[:1] != [room]:
                # A public name is no room: a file imports from where it is made.
                is_below = bool(rest) and FLOOR.get(rest[0], 0) > FLOOR[room]
                if not is_below or rest[:2] == ["backend", "tensorflow"]:
                    yield f"{room} imports {name}"


def test_imports_go_down_and_tensorflow_is_in_backend_alone():
    assert list(wrong_imports(PACKAGE)) == []


def test_every_room_is_on_a_floor_and_says_what_lives_there():
    rooms = {p.parent.name: p for p in PACKAGE.glob("*/__init__.py")}
    assert set(rooms) == set(FLOOR)
    for room, file in rooms.items():
        assert ast.get_docstring(ast.parse(file.read_text())), room


@pytest.mark.parametrize(
    ("room", "line", "found"),
    [
        ("ops", "from keras_sparseout import layers", "keras_sparseout.layers"),
        ("plots", "import keras_sparseout.metrics.get", "keras_sparseout.metrics.get"),
        ("callbacks", "from tensorflow import data", "tensorflow.data"),
        ("measure", "def f():\n    import tensorflow as tf", "tensorflow"),
        ("backend", "from keras.src import backend", "keras.src.backend"),
        ("summary", "import keras_sparseout", "keras_sparseout"),
        (
            "measure",
            "from keras_sparseout import Sparseout",
            "keras_sparseout.Sparseout",
        ),
        (
            "layers",
            "from keras_sparseout.backend.tensorflow import random",
            "keras_sparseout.backend.tensorflow.random",
        ),
    ],
)
def test_a_wrong_import_is_found(tmp_path, room, line, found):
    (tmp_path / room).mkdir()
    (tmp_path / room / "new.py").write_text(line + "\n")
    assert list(wrong_imports(tmp_path)) == [f"{room} imports {found}"]
