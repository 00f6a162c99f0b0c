"""Python does not look for garbage around imports, and does so again afterwards."""

import gc

import pytest

from plumbob.core.garbage import uncollected


def test_nobody_looks_inside_and_it_is_afterwards_as_before() -> None:
    assert gc.isenabled()
    with pytest.raises(ImportError), uncollected():
        assert not gc.isenabled()
        with uncollected():
            pass
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
