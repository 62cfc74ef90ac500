"""The download of CIFAR-10, from an archive on this machine: no test uses the network."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
from tiny import write_cifar10

from cflows_ray.workloads import DataUnavailable, fetch_data
from cflows_ray.workloads.data import cifar10_download as download
from cflows_ray.workloads.data.cifar10 import CIFAR10Options, load
from cflows_ray.workloads.data.cifar10_download import ENVIRONMENT_VARIABLE


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)


def make_archive(tmp_path, members=()):
    """Pack fake files as the official archive does, with extra members; (URL, SHA-256)."""
    files = write_cifar10(tmp_path / download.FOLDER, batches=5)
    path = tmp_path / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(files, arcname=download.FOLDER)
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path.as_uri(), hashlib.sha256(path.read_bytes()).hexdigest()


def test_fetches_once_and_reads(tmp_path, monkeypatch):
    url, sha256 = make_archive(tmp_path)
    folder = download.fetch_cifar10(url, sha256)
    assert folder == download.cache_folder() / download.FOLDER
    monkeypatch.setattr("urllib.request.urlopen", None)  # a second download would fail
    assert download.fetch_cifar10(url, sha256) == folder
    assert len(load(CIFAR10Options(num_examples=8)).x) == 8  # five files, found in the cache
    assert [p.name for p in download.cache_folder().iterdir()] == [download.FOLDER]


def test_wrong_checksum(tmp_path):
    url, _ = make_archive(tmp_path)
    with pytest.raises(RuntimeError, match=r"SHA-256 .* expected 00.*CFLOWS_CIFAR10_DIR"):
        download.fetch_cifar10(url, "00" * 32)
    assert list(download.cache_folder().iterdir()) == []


def test_offline(tmp_path):
    with pytest.raises(RuntimeError, match=r"could not download .*CFLOWS_CIFAR10_DIR") as caught:
        download.fetch_cifar10((tmp_path / "nothing.tar.gz").as_uri(), "00" * 32)
    assert "\n" not in str(caught.value)
    assert list(download.cache_folder().iterdir()) == []


def test_data_are_looked_for_before_anything_is_loaded(tmp_path, monkeypatch):
    fetch_data("digits_mlp")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    with pytest.raises(DataUnavailable, match=r"CFLOWS_CIFAR10_DIR = .* has no data_batch_1.bin"):
        fetch_data("mlp_cifar10")
    folder = write_cifar10(tmp_path / "files", batches=1)
    fetch_data("mlp_cifar10", {"data_dir": str(folder)})


def test_nothing_leaves_the_folder(tmp_path):
    """Paths that climb, absolute paths, links and devices in an archive are left alone."""
    outside = tmp_path / "outside.bin"
    link = tarfile.TarInfo(f"{download.FOLDER}/link.bin")
    link.type, link.linkname = tarfile.SYMTYPE, str(outside)
    members = [
        (tarfile.TarInfo("../../outside.bin"), b"a"),
        (tarfile.TarInfo(str(outside)), b"b"),
        (link, b""),
    ]
    folder = download.fetch_cifar10(*make_archive(tmp_path, members))
    assert not outside.exists()
    assert {p.name for p in folder.iterdir()} <= set(download.MEMBERS)


def test_archive_that_lacks_files(tmp_path):
    path = tmp_path / "empty.tar.gz"
    with tarfile.open(path, "w:gz"):
        pass
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(RuntimeError, match=r"lacks data_batch_1\.bin"):
        download.fetch_cifar10(path.as_uri(), digest)
    assert list(download.cache_folder().iterdir()) == []
