"""What a machine has to be able to do for some tests."""

import os
from typing import NoReturn

import pytest

REQUIRED = "PLUMBOB_NEEDS_HOSTS"
"""Set where the tests of several hosts and of full disks must not be skipped, as CI sets it."""


def cannot(reason: str) -> NoReturn:
    """Skip the test; fail it where it must not be skipped."""
    if os.environ.get(REQUIRED):
        pytest.fail(f"{reason}; {REQUIRED} is set, so that this is no reason to skip", pytrace=False)
    pytest.skip(reason)
