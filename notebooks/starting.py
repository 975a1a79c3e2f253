"""Keeps the start of pytest short; `.pytest.toml` has it loaded before all other plugins.

nbval imports jsonschema, and where there is a package for it, as with Jupyter, that
compiles 38 grammars of international addresses (RFC 3987). It would take longer than all
other imports together, in each process of the suite; no notebook has such an address.
"""

import gc
import sys

import pytest

# So the package cannot be imported, which jsonschema takes for "is not installed".
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
# Imports and the collection of tests leave little garbage, and nearly all stays to the end.
gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Look for garbage from now on, but not among what is here."""
    gc.freeze()
    gc.enable()
