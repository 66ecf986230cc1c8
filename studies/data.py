"""What the studies take from the examples: their models, and the data beside them."""

import sys
from pathlib import Path

# The examples are scripts that import each other by name.
_FOLDER = str(Path(__file__).parents[1] / "examples")
if _FOLDER not in sys.path:
    sys.path.append(_FOLDER)

import fashion_cnn  # noqa: E402
import lm_text  # noqa: E402
import lstm_lm  # noqa: E402

__all__ = ["fashion_cnn", "lm_text", "lstm_lm"]
