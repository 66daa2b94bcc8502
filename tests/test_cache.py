"""The disk cache: round trips, damage, foreign entries, read-only folders, and its bound."""

import os

import pytest

from tracecc import cache, config


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACECC_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_what_was_put_is_what_is_got():
    assert cache.get("a") is None
    cache.put("a", b"code")
    cache.put("b", b"")
    assert cache.get("a") == b"code"
    assert cache.get("b") == b""


def test_the_source_is_stored_beside_the_entry():
    path = cache.put("a", b"code", "def a(): pass\n")
    assert path is not None
    assert path.read_text() == "def a(): pass\n"


@pytest.mark.parametrize("damage", [b"", b"x", b"tracecc1" + b"0" * 100])
def test_a_damaged_entry_counts_as_none(damage):
    cache.put("a", b"code")
    cache.path("a").write_bytes(damage)
    assert cache.get("a") is None


def test_one_flipped_bit_counts_as_none():
    cache.put("a", b"code")
    data = bytearray(cache.path("a").read_bytes())
    data[-1] ^= 1
    cache.path("a").write_bytes(data)
    assert cache.get("a") is None


def test_an_entry_under_another_keys_name_is_not_believed():
    cache.put("a", b"code")
    cache.put("b", b"other")
    cache.path("b").write_bytes(cache.path("a").read_bytes())
    assert cache.get("b") is None


def test_a_folder_that_cannot_be_made_is_not_an_error(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("TRACECC_CACHE_DIR", str(file / "below"))
    assert cache.put("a", b"code") is None
    assert cache.get("a") is None
    assert cache.info()["kernels"] == 0
    cache.clear()


def test_a_failed_write_leaves_nothing_behind(folder, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "replace", refuse)
    assert cache.put("a", b"code") is None
    assert [f for f in folder.rglob("*") if f.is_file()] == []


def test_the_oldest_entries_go_when_the_bound_is_reached(monkeypatch):
    monkeypatch.setenv("TRACECC_CACHE_SIZE", "1")
    for n in range(12):
        cache.put(f"k{n}", bytes(200_000))
        os.utime(cache.path(f"k{n}"), (n, n))
    info = cache.info()
    assert info["bytes"] <= info["limit"] == 1 << 20
    assert cache.get("k0") is None
    assert cache.get("k11") == bytes(200_000)


def test_size_zero_turns_the_cache_off(folder, monkeypatch):
    monkeypatch.setenv("TRACECC_CACHE_SIZE", "0")
    assert cache.put("a", b"code") is None
    assert list(folder.iterdir()) == []


def test_clear_removes_every_entry():
    cache.put("a", b"code", "source")
    cache.clear()
    assert cache.info()["kernels"] == 0
    assert cache.get("a") is None


def test_every_setting_is_in_the_help_and_numbers_are_checked(monkeypatch):
    for setting in config.SETTINGS:
        assert setting.variable in config.help_text()
    monkeypatch.setenv("TRACECC_SPIN", "-3")
    with pytest.raises(
        ValueError, match="TRACECC_SPIN must be a whole number of at least 0, given '-3'"
    ):
        config.get_int("TRACECC_SPIN")


def test_thread_count_settings(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert config.num_threads() == 3
    monkeypatch.setenv("TRACECC_NUM_THREADS", "5")
    assert config.num_threads() == 5
