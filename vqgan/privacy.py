"""What must not be told: values that came from the environment."""

from __future__ import annotations

import os
import re
import sys

SECRET = re.compile("KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)  # in names of environment variables
PUBLIC, SHORTEST_SECRET = ("HOME", "USER", "PWD", "TMPDIR", "XDG_CACHE_HOME"), 6


def without_secrets(text: str) -> str:
    """A message in which no value stands that came from the environment, be it typed or in a config."""
    typed = " ".join(sys.argv)
    for name, value in os.environ.items():
        is_secret = SECRET.search(name) or (f"oc.env:{name}" in typed and name not in PUBLIC)
        if is_secret and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, f"<environment: {name}>")
    return text
