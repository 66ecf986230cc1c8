"""The public names and signatures: those of version 0.1.0, and those of today."""

from pathlib import Path

from public_api import public_api

DATA = Path(__file__).parents[1] / "data"
# Methods of layers around others that no text named.
RENAMED = {".drawn(", ".noisy("}


def test_no_name_and_no_signature_of_an_earlier_version_is_lost():
    before = (DATA / "0.1.0" / "public_api.txt").read_text().splitlines()
    kept = {line for line in before if not any(old in line for old in RENAMED)}
    assert len(kept) > 350
    assert kept - set(public_api()) == set()


def test_the_list_of_names_is_up_to_date():
    assert public_api() == (DATA / "public_api.txt").read_text().splitlines()
