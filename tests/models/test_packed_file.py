from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from tusi.core import machine
from tusi.core.errors import CheckpointError
from tusi.models import packed_file
from tusi.models.packed_file import PackedFile, PackedWriter, WeightMemory
from tusi.models.piece_sums import PieceSums
from tusi.quant.memory import HUGE_PAGE

MEMORIES: tuple[WeightMemory, ...] = ("anonymous", "mmap")
ARRAYS = {
    "codes": np.arange(1001, dtype=np.uint8).reshape(7, 143),
    "scales": np.linspace(-1, 1, 9, dtype=np.float32),
    "bits": np.arange(6, dtype=np.uint16).reshape(2, 3),
    "none": np.empty((0, 4), np.int8),
}


def in_small_pieces(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(packed_file, "_PIECE", 100)
    return write(folder)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path)


def write(tmp_path: Path) -> Path:
    with PackedWriter(tmp_path / "a.packed", {"format": "int4"}) as writer:
        writer.add("one", {"k": 3}, ARRAYS)
        writer.add("two", {}, {"array": np.ones(5, np.float32)})
    return tmp_path / "a.packed"


@pytest.mark.parametrize("memory", MEMORIES)
def test_arrays_come_back_bit_for_bit(path: Path, memory: WeightMemory) -> None:
    packed = PackedFile(path)
    assert packed.about == {"format": "int4"}
    assert packed.entries["one"].description == {"k": 3}
    loaded = packed.load(memory)
    for name, array in ARRAYS.items():
        assert loaded["one"][name].dtype == array.dtype
        assert np.array_equal(loaded["one"][name], array)
        assert loaded["one"][name].ctypes.data % 64 == 0
        assert loaded["one"][name].flags.writeable
    assert np.array_equal(loaded["two"]["array"], np.ones(5))


def test_writing_into_mapped_arrays_does_not_change_the_file(path: Path) -> None:
    before = path.read_bytes()
    PackedFile(path).load("mmap")["one"]["codes"][:] = 99
    assert path.read_bytes() == before


def test_many_pieces_and_a_file_larger_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = in_small_pieces(tmp_path, monkeypatch)
    monkeypatch.setattr(packed_file, "_STEP", 30)
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(total=1, available=1, limit=None))
    told: list[tuple[int, int]] = []
    packed = PackedFile(path)
    loaded = packed.load("anonymous", lambda done, total: told.append((done, total)))
    assert np.array_equal(loaded["one"]["codes"], ARRAYS["codes"])
    assert told[-1] == (packed.num_bytes, packed.num_bytes)
    assert len(told) == -(-packed.num_bytes // 100)


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with PackedWriter(tmp_path / "b.packed", {}) as writer:
            writer.add("one", {}, ARRAYS)
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_damage_is_an_error_that_says_what_to_do(path: Path) -> None:
    good = path.read_bytes()
    index = good[:64].find(b"TUSIPACK")
    assert index == 0
    for bad in (
        b"",
        good[:50],
        good[:-1],
        good + b"x",
        b"X" + good[1:],
        good[:8] + b"\xff" * 8 + good[16:],
        good[:-10] + b"0123456789",
    ):
        path.write_bytes(bad)
        with pytest.raises(CheckpointError, match="tusi pack"):
            PackedFile(path)
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        PackedFile(path)


def test_arrays_that_go_beyond_the_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.packed"
    with PackedWriter(path, {}) as writer:
        writer.add("one", {}, {"a": np.zeros(8, np.float32)})
        writer._entries["one"]["arrays"]["a"][1] = [9]
    with pytest.raises(CheckpointError, match="beyond the end"):
        PackedFile(path)


def test_a_file_cut_while_it_is_read_is_an_error(path: Path) -> None:
    packed = PackedFile(path)
    with path.open("r+b") as file:
        file.truncate(HUGE_PAGE + 10)
    with pytest.raises(CheckpointError, match="has been cut"):
        packed.load("anonymous")


@pytest.mark.parametrize("place", [0, 500, 1000, 1040, -1])
def test_one_flipped_bit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    path = in_small_pieces(tmp_path, monkeypatch)
    assert PackedFile(path).find_damage() == []
    content = bytearray(path.read_bytes())
    first = HUGE_PAGE + (place if place >= 0 else PackedFile(path).num_bytes - 1)
    content[first] ^= 0x10
    path.write_bytes(content)
    packed = PackedFile(path)
    with pytest.raises(
        CheckpointError, match=r"1 of \d+ pieces are not what was written.*make it again with `tusi pack`"
    ):
        packed.load("anonymous")
    names = packed.find_damage()
    assert names == (["two"] if place == -1 else ["one"])
    packed.load("mmap")  # not looked at: that would read all of it


def test_damage_names_all_that_it_may_have_reached(path: Path) -> None:
    """Both entries lie in the same piece of 32 MiB."""
    content = bytearray(path.read_bytes())
    content[HUGE_PAGE + 7] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"1 of 1 pieces .* \(they hold one and 1 more\)"):
        PackedFile(path).load("anonymous")


def test_checking_reports_progress_and_sees_a_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = in_small_pieces(tmp_path, monkeypatch)
    packed = PackedFile(path)
    told: list[tuple[int, int]] = []
    assert packed.find_damage(lambda done, total: told.append((done, total))) == []
    assert told[-1] == (packed.num_bytes, packed.num_bytes)
    with path.open("r+b") as file:
        file.truncate(HUGE_PAGE + 10)
    with pytest.raises(CheckpointError, match="has been cut"):
        packed.find_damage()


def test_sums_do_not_depend_on_the_portions() -> None:
    data = np.random.default_rng(0).bytes(1000)
    for step in (1, 7, 64, 100, 1000):
        sums = PieceSums(64)
        for begin in range(0, 1000, step):
            sums.update(data[begin : begin + step])
        assert sums.end() == [zlib.crc32(data[begin : begin + 64]) for begin in range(0, 1000, 64)]


def test_a_file_of_an_earlier_version_is_known_by_its_missing_sums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_without_sums(tmp_path, monkeypatch)
    packed = PackedFile(path)
    assert not packed.has_sums
    with pytest.raises(CheckpointError, match="no checksums"):
        packed.find_damage()


def write_without_sums(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As versions before checksums wrote it."""
    dumps = json.dumps
    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", lambda index: dumps({k: v for k, v in index.items() if k != "sums"}))
        return write(folder)


def test_sums_that_do_not_fit_the_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dumps = json.dumps
    for sums in ({"piece_bytes": 0, "crc32": []}, {"piece_bytes": 64, "crc32": [1]}, {"crc32": []}, [1]):
        with monkeypatch.context() as patch:
            patch.setattr(json, "dumps", lambda index, sums=sums: dumps({**index, "sums": sums}))
            path = write(tmp_path)
        with pytest.raises(CheckpointError, match="tusi pack"):
            PackedFile(path)
