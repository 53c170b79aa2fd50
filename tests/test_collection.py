"""Which content of a file gets into a snapshot, whatever happened to the live one."""

import hashlib
from pathlib import Path

import pytest
from collection import Collection
from database import Digests
from pool import Pool, Stored
from snapshot import Manifest

from tests.test_database import Changes, Readable, commit, create, file
from tests.test_snapshot import manifest

PATH = "pypi/stable/+f/abc/a.whl"


class Place:
    """A live server's files and database, and a pool."""

    def __init__(self, folder: Path) -> None:
        self.live, self.pool = folder / "+files", Pool(folder / "backups")
        self.database = create(folder / ".sqlite")

    def write(self, content: bytes, path: str = PATH) -> str:
        """Have a live file; its digest."""
        (self.live / path).parent.mkdir(parents=True, exist_ok=True)
        (self.live / path).write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    def upload(self, content: bytes, path: str = PATH) -> str:
        digest = self.write(content, path)
        commit(self.database, {path: file(digest)})
        return digest

    def collect(self, before: Manifest | None = None, full: bool = False) -> Collection:
        made = Collection(self.pool, self.live)
        copy = Readable(self.database)
        made.collect(copy, before, full)
        copy.close()
        return made

    def snapshot(self) -> Manifest:
        made = self.collect()
        copy = Readable(self.database)
        found = manifest(serial=copy.serial, files=made.files, lost=made.lost)
        copy.close()
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_was_uploaded_is_in_it_and_what_was_removed_is_not(place: Place) -> None:
    digest = place.upload(b"one")
    place.upload(b"two", "gone")
    commit(place.database, {"gone": ("STAGEFILE", None)})
    made = place.collect()
    assert (made.files, made.lost) == ({PATH: Stored(digest, 3)}, {}) and place.pool.is_sound(digest)


def test_of_a_further_one_only_what_is_new_is_read(place: Place) -> None:
    old = place.upload(b"one")
    before = place.snapshot()
    (place.live / PATH).unlink()  # nobody looks there again
    new = place.upload(b"two", "new")
    place.pool.grown = 0
    made = place.collect(before)
    assert made.files == {PATH: Stored(old, 3), "new": Stored(new, 3)} and place.pool.grown == 3


def test_what_is_pushed_to_another_index_costs_nothing(place: Place) -> None:
    digest = place.upload(b"one")
    place.upload(b"one", "pushed")
    assert place.collect().files == {PATH: Stored(digest, 3), "pushed": Stored(digest, 3)} and place.pool.grown == 3


def test_what_was_committed_but_not_yet_renamed_into_place_is_in_it(place: Place) -> None:
    digest = place.upload(b"one")
    (place.live / PATH).rename(place.live / f"{PATH}-{'ab' * 32}-tmp")
    assert place.collect().files == {PATH: Stored(digest, 3)}


def test_half_an_upload_of_another_content_is_not_taken_for_it(place: Place) -> None:
    place.upload(b"one")
    (place.live / PATH).unlink()
    place.write(b"other", f"{PATH}-{'ab' * 32}-tmp")
    assert place.collect().lost == {PATH: "its content is not what devpi's database says"}


def test_what_is_not_there_and_what_is_damaged_is_told_apart(place: Place) -> None:
    place.upload(b"one")
    place.upload(b"two", "damaged")
    (place.live / PATH).unlink()
    place.write(b"twp", "damaged")
    made = place.collect()
    assert made.lost == {PATH: "the file is not there", "damaged": "its content is not what devpi's database says"}
    assert made.files == {} and list(place.pool.contents()) == []


@pytest.mark.parametrize("digests", [None, {"md5": hashlib.md5(b"one").hexdigest()}])
def test_what_is_damaged_now_comes_from_the_pool_that_has_it_from_before(place: Place, digests: Digests | None) -> None:
    digest = place.upload(b"one")
    before = place.snapshot()
    place.write(b"onf")
    entry: Changes = {PATH: file(digest)}
    if digests:
        entry = {PATH: ("STAGEFILE", {"hash_spec": f"md5={digests['md5']}", "last_modified": "today"})}
    commit(place.database, entry)
    assert place.collect(before).files == {PATH: Stored(digest, 3)}
    assert place.collect(None).lost if digests else place.collect(None).files


def test_a_damaged_content_of_the_pool_stands_for_nothing(place: Place) -> None:
    digest = place.upload(b"one")
    place.collect()
    place.pool.path(digest).chmod(0o644)
    place.pool.path(digest).write_bytes(b"onf")
    place.write(b"onf")
    assert place.collect().lost == {PATH: "its content is not what devpi's database says"}


def test_what_went_from_the_pool_is_taken_again(place: Place) -> None:
    digest = place.upload(b"one")
    before = place.snapshot()
    place.pool.path(digest).unlink()
    assert place.collect(before).files == {PATH: Stored(digest, 3)} and place.pool.is_sound(digest)


def test_what_was_damaged_in_the_pool_is_taken_again_when_all_is_read(place: Place) -> None:
    digest = place.upload(b"one")
    before = place.snapshot()
    place.pool.path(digest).chmod(0o644)
    place.pool.path(digest).write_bytes(b"onf")
    assert place.collect(before, full=True).files == {PATH: Stored(digest, 3)} and place.pool.is_sound(digest)


def test_what_was_lost_is_asked_for_again(place: Place) -> None:
    digest = place.upload(b"one")
    (place.live / PATH).unlink()
    before = place.snapshot()
    assert before.lost and place.collect(before).lost == before.lost
    place.write(b"one")
    made = place.collect(before)
    assert (made.files, made.lost) == ({PATH: Stored(digest, 3)}, {})


def test_what_was_lost_and_is_removed_since_is_no_loss(place: Place) -> None:
    place.upload(b"one")
    (place.live / PATH).unlink()
    before = place.snapshot()
    commit(place.database, {PATH: ("STAGEFILE", None)})
    made = place.collect(before)
    assert (made.files, made.lost) == ({}, {})


def test_mirrored_files_without_a_digest_are_taken_as_they_are_and_anew_when_they_changed(place: Place) -> None:
    first = place.write(b"one", "root/pypi/+e/a.whl")
    entry: Changes = {"root/pypi/+e/a.whl": ("PYPIFILE_NOMD5", {"last_modified": "today"})}
    commit(place.database, entry)
    before = place.snapshot()
    assert before.files == {"root/pypi/+e/a.whl": Stored(first, 3)}
    second = place.write(b"three", "root/pypi/+e/a.whl")
    commit(place.database, entry)
    assert place.collect(before).files == {"root/pypi/+e/a.whl": Stored(second, 5)}


def test_what_cannot_be_read_is_lost_not_the_end(place: Place) -> None:
    place.upload(b"one")
    (place.live / PATH).unlink()
    (place.live / PATH).mkdir()
    assert "cannot be read" in place.collect().lost[PATH]
