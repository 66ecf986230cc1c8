"""No public name and no signature of version 0.1.0 is lost."""

from pathlib import Path

from public_api import public_api

BEFORE = Path(__file__).parents[1] / "data" / "public_api.txt"


def test_every_name_has_the_signature_that_it_had():
    assert public_api() == BEFORE.read_text().splitlines()
