"""What the recipes of the documentation show works, each by itself."""

import pages
import pytest

RECIPES = {
    name: text for name, text in pages.programs().items() if pages.is_recipe(name)
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:keras_tuner")
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_prints_what_it_shows(name, tmp_path, monkeypatch):
    if "import keras_tuner" in RECIPES[name]:
        pytest.importorskip("keras_tuner")
    monkeypatch.chdir(tmp_path)
    pages.run(RECIPES[name], name)
