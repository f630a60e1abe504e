"""The tiny decoder that the models of these tests share."""

from pathlib import Path

import pytest

from tests import tiny


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_decoder(tmp_path_factory.mktemp("decoder"))
