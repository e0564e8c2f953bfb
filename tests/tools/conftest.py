"""A model in three checkpoints, not yet written."""
import pytest

from conversion import Model


@pytest.fixture
def model(tmp_path):
    return Model(tmp_path)
