from __future__ import annotations

import pytest

from tests.data.fakes import fake_fsdd


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny data set in the layout of the Free Spoken Digit Dataset."""
    return fake_fsdd(tmp_path_factory.mktemp("fsdd"), num_index=11)
