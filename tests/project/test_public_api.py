"""The public names and signatures: those of version 0.1.0, and those of today."""

import subprocess
import sys
from pathlib import Path

import pytest
from public_api import public_api

import keras_sparseout

DATA = Path(__file__).parents[1] / "data"
# Methods of layers around others that no text named.
RENAMED = {".drawn(", ".noisy("}
# `every` has another default.
CHANGED = {"SparsityController("}
# Arguments by name that came later.
ADDED = (", target_fraction=1.0",)


def test_no_name_and_no_signature_of_an_earlier_version_is_lost():
    before = (DATA / "0.1.0" / "public_api.txt").read_text().splitlines()
    left_out = RENAMED | CHANGED
    kept = {line for line in before if not any(old in line for old in left_out)}
    assert len(kept) > 350
    today = "\n".join(public_api())
    for argument in ADDED:
        assert argument in today
        today = today.replace(argument, "")
    assert kept - set(today.splitlines()) == set()


def test_the_list_of_names_is_up_to_date():
    assert public_api() == (DATA / "public_api.txt").read_text().splitlines()


def test_import_registers_layers_and_other_names_come_late():
    code = """
import sys
import keras

before = set(sys.modules)  # Keras imports pandas where it is there.
import keras_sparseout as ks

# A file names the classes of its layers.
for name in ks.layers.__all__:
    assert keras.saving.get_registered_object(f"keras_sparseout>{name}"), name
late = [m for m in sys.modules if m.startswith("keras_sparseout.callbacks")]
assert not late, late
assert set(ks.__all__) <= set(dir(ks))
for name in [*ks.__all__, "masks", "summary"]:
    getattr(ks, name)
assert ks.SparsityTracker is ks.callbacks.SparsityTracker
assert ks.masks.seed_pair is ks.ops.masks.seed_pair
optional = {"matplotlib", "pandas", "tensorflow_datasets"}
assert not optional & (set(sys.modules) - before)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'Sparsout'"):
        keras_sparseout.Sparsout  # noqa: B018
