"""Each content once, and only if it is what its name says."""

import hashlib
from pathlib import Path

import pool
import pytest
from pool import Different, Pool, Stored, agrees

CONTENT = b"a wheel"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def made(tmp_path: Path) -> Pool:
    return Pool(tmp_path / "backups")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def contents(made: Pool) -> list[bytes]:
    return [path.read_bytes() for path in made.contents()]


def test_what_was_added_is_there_under_its_digest(made: Pool, source: Path) -> None:
    stored = made.add(source)
    assert stored == Stored(SHA256, len(CONTENT)) and made.has(stored) and made.is_sound(SHA256)
    assert made.path(SHA256).read_bytes() == CONTENT and not list(made.work.iterdir())


def test_it_is_a_copy_that_the_live_file_cannot_damage(made: Pool, source: Path) -> None:
    made.add(source)
    source.write_bytes(b"other")
    assert made.is_sound(SHA256) and made.path(SHA256).stat().st_mode & 0o222 == 0


def test_the_same_content_again_costs_nothing(made: Pool, source: Path, tmp_path: Path) -> None:
    made.add(source)
    (tmp_path / "again").write_bytes(CONTENT)
    made.add(tmp_path / "again")
    assert contents(made) == [CONTENT] and made.grown == len(CONTENT)


def test_one_flipped_bit_is_noticed(made: Pool, source: Path) -> None:
    path = made.path(made.add(source).sha256)
    path.chmod(0o644)
    path.write_bytes(bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
    assert made.has(Stored(SHA256, len(CONTENT))) and not made.is_sound(SHA256)


def test_half_a_content_is_none_and_is_replaced_by_the_whole(made: Pool, source: Path) -> None:
    made.path(SHA256).parent.mkdir(parents=True)
    made.path(SHA256).write_bytes(CONTENT[:3])
    assert not made.has(Stored(SHA256, len(CONTENT))) and not made.is_sound(SHA256)
    made.add(source)
    assert made.is_sound(SHA256)


def test_what_is_not_what_devpi_knows_is_not_taken(made: Pool, source: Path) -> None:
    with pytest.raises(Different):
        made.add(source, {"sha256": "0" * 64})
    assert contents(made) == [] and not list(made.work.iterdir()) and made.grown == 0


def test_nothing_stays_of_a_source_that_is_not_there(made: Pool, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        made.add(tmp_path / "none")
    assert contents(made) == [] and not list(made.work.iterdir())
    assert not made.is_sound(SHA256) and not made.has(Stored("", 0))


@pytest.mark.parametrize("name", ["sha256", "sha512", "md5"])
def test_any_digest_that_devpi_has_is_compared(source: Path, name: str) -> None:
    right = hashlib.new(name, CONTENT).hexdigest()
    assert agrees(source, {name: right}) and agrees(source, {name: right}, SHA256)
    assert not agrees(source, {name: right[::-1]}) and not agrees(source, {name: right[::-1]}, SHA256)


def test_a_file_without_a_digest_is_as_it_is(source: Path) -> None:
    assert agrees(source, {}) and agrees(source, {"unknown": "1"})


def test_the_best_digest_decides(source: Path) -> None:
    assert agrees(source, {"md5": "0" * 32, "sha256": SHA256})


def test_where_blocks_cannot_be_shared_bytes_are_copied(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "FICLONE", 0)  # no request of any file system's
    pool.clone(source, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == CONTENT


def test_all_is_on_disk_or_the_error_is_told(tmp_path: Path) -> None:
    pool.sync(tmp_path)
    with pytest.raises(FileNotFoundError):
        pool.sync(tmp_path / "none")


def test_a_later_state_of_a_large_file_costs_the_pieces_that_differ(tmp_path: Path) -> None:
    pool, source = Pool(tmp_path), tmp_path / "source"
    (tmp_path / "work").mkdir()
    first = bytes(range(256)) * 1000 + b"the end"
    source.write_bytes(first)
    whole, pieces = pool.add_pieces(source)
    assert whole == Stored(hashlib.sha256(first).hexdigest(), len(first))
    pool.join(pieces, tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == first
    pool.grown = 0
    source.write_bytes(first[:100_000] + b"X" + first[100_001:] + b", and more")
    _, later = pool.add_pieces(source)
    assert [one == other for one, other in zip(pieces, later, strict=True)] == [True, False, True, False]
    assert pool.grown == later[1].size + later[3].size
    half = pool.path(later[1].sha256)
    half.chmod(0o644)
    half.write_bytes(b"half of it")
    assert pool.add_pieces(source)[1] == later and pool.is_sound(later[1].sha256)
