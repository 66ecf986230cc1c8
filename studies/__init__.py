"""Studies: the paper's claims, measured. `python -m studies NAME` runs one."""
