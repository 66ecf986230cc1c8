"""What several test files share and is made once."""

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="session")
def fashion():
    """The module of the CNN example, its images and the number of classes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import fashion_cnn

        yield fashion_cnn, *fashion_cnn.load_data(fashion_cnn.EMBEDDED)
