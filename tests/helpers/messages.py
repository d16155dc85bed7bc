"""Messages as they are told."""

import re


def exactly(message):
    return f"^{re.escape(message)}$"
