"""Fixtures and rules for every test."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Folder of real headers, catalogs and frames; tests that need it skip where it is not set."""
    folder = os.environ.get("SUB60_REFERENCE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("SUB60_REFERENCE_DATA does not name the folder of reference data")
    return Path(folder)
