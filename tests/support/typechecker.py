"""What checks annotations at run time: beartype, for which an int is a float as in Python."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))
