"""Files of stripped models load where this package can't be imported."""

import numpy as np
from fresh import run_fresh
from rebuilt import MODELS, X, outputs
from stripped import KINDS, started

import keras_sparseout as ks
from keras_sparseout.models import insert, strip

SCRIPT = """
import pathlib, sys


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "keras_sparseout":
            raise ImportError(name)


sys.meta_path.insert(0, Blocked())
import keras, numpy as np

folder, out = pathlib.Path(sys.argv[1]), {}
for file in folder.glob("*.keras"):
    model = keras.saving.load_model(file)
    given = np.load(file.with_suffix(".npz"))
    x = {name: given[name] for name in given.files}
    if "0" in x:
        x = [*x.values()] if len(x) > 1 else x["0"]
    for number, y in enumerate(keras.tree.flatten(model(x))):
        out[f"{file.stem}/{number}"] = keras.ops.cast(y, "float32")
    if file.stem == "trained":
        assert model.compiled and model.optimizer.iterations == 1
        model.train_on_batch(x, np.zeros((4, 2)))
# Otherwise this would pass whatever strip does.
try:
    keras.saving.load_model(folder / "whole" / "trained.keras")
except TypeError as error:
    assert "Could not locate class" in str(error)
else:
    raise AssertionError("It needs no package.")
np.savez(folder / "fresh.npz", **out)
"""


def test_they_load_and_predict_the_same(tmp_path):
    kinds = {name: KINDS[name] for name in ("cells", "in time", "shared")}
    models = {name: (started(make()), x) for name, (make, x) in kinds.items()}
    make, x, places = MODELS["two inputs"]
    cut = insert(make(), dict.fromkeys(places, lambda _: ks.TargetSparsity(0.5)))
    models["inserted"] = started(cut), x
    trained = started(KINDS["all kinds"][0]())
    trained.compile("adam", "mse", metrics=["mae"], run_eagerly=True)
    trained.train_on_batch(X, X[:, :2])
    models["trained"] = trained, X
    (tmp_path / "whole").mkdir()
    trained.save(tmp_path / "whole" / "trained.keras")
    expected = {}
    for name, (model, x) in models.items():
        plain = strip(model, verbose=0)
        plain.save(tmp_path / f"{name}.keras")
        given = x if isinstance(x, dict) else dict(enumerate(_listed(x)))
        np.savez(tmp_path / name, **{str(key): value for key, value in given.items()})
        for number, y in enumerate(outputs(model, x)):
            expected[f"{name}/{number}"] = y
    found = run_fresh(tmp_path, SCRIPT)
    assert set(found.files) == set(expected)
    for key, y in expected.items():
        np.testing.assert_allclose(found[key], y, rtol=1e-5, atol=1e-6, err_msg=key)


def _listed(x):
    return x if isinstance(x, list) else [x]
