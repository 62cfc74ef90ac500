"""What every store must do, whether a folder or an object store."""

from __future__ import annotations

import pytest

from cflows_ray.store.storage import Storage


def check_storage(storage: Storage) -> None:
    """Write, read, list, move and delete in an empty storage, which is empty again afterwards."""
    assert storage.names("a", recursive=True) == []
    with pytest.raises(FileNotFoundError):
        storage.read("a/b")
    storage.write("a/b", b"one")
    storage.write("a/b", b"two")
    storage.write("a/c/d", b"three")
    assert storage.read("a/b") == b"two"
    assert storage.names("a") == ["b"]
    assert storage.names("a", recursive=True) == ["b", "c/d"]
    storage.move("a/b", "a/e")
    assert storage.exists("a/e")
    assert not storage.exists("a/b")
    assert storage.names("", recursive=True) == ["a/c/d", "a/e"]
    storage.delete("a/e")
    storage.delete("a/e")
    storage.delete_folder("a")
    storage.delete_folder("a")
    assert storage.names("", recursive=True) == []
