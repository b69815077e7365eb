"""A store of each kind, and a desk over it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cra.storage.base import Storage
from tests.runtime.desk import STORES, Desk, open_store


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    store = open_store(request.param, tmp_path)
    yield store
    store.close()


@pytest.fixture
def desk(store: Storage) -> Desk:
    return Desk(store)
