"""Answers as files: whole or not at all, told apart by their content, within the limit, and gone when they are untrue."""

import contextlib
import functools
import gzip
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from page_store import AGED, WORK, PageStore, etag_time

from pypi_tasks.settings import ROOT
from pypi_tasks.world import poll
from tests.helpers import public_folder, unprivileged

BODY = b"<a href='six-1.0.tar.gz'>six-1.0.tar.gz</a>\n" * 30
NAME = "pypi/stable/+simple/six.html"


@pytest.fixture
def store(tmp_path: Path) -> PageStore:
    return PageStore(tmp_path / "public", 1_000_000)


def put(store: PageStore, name: str, body: bytes = BODY, compress: bool = True) -> None:
    """Keep an answer, as the keeper does."""
    with store.prepared(name, body, compress) as prepared, store.lock:
        store.publish(prepared)


def is_over(file: Path) -> bool:
    """Whether what is written now is younger than a file, by the clock of the file system."""
    with tempfile.NamedTemporaryFile(dir=file.parent.parent) as probe:
        return Path(probe.name).stat().st_ctime_ns > file.stat().st_ctime_ns


def files(store: PageStore) -> set[str]:
    """What is on disk, work files too."""
    return {str(path.relative_to(store.folder)) for path in store.folder.rglob("*") if path.is_file()}


class TestEtagTime:
    """The proxy makes a page's ETag of its size and its time in whole seconds."""

    def test_is_the_same_for_the_same_content(self) -> None:
        assert etag_time(BODY) == etag_time(bytes(BODY))

    def test_differs_for_contents_of_one_size(self) -> None:
        bodies = [b"six-1.%04d.tar.gz" % number for number in range(1000)]
        assert len({len(body) for body in bodies}) == 1
        assert len({etag_time(body) for body in bodies}) == 1000

    def test_is_a_time_that_every_file_system_keeps(self) -> None:
        assert all(0 <= etag_time(b"%d" % number) < 2**31 for number in range(1000))

    def test_is_on_disk_for_both_encodings(self, store: PageStore) -> None:
        put(store, NAME)
        assert {(store.folder / name).stat().st_mtime_ns for name in (NAME, f"{NAME}.gz")} == {etag_time(BODY) * 10**9}

    def test_changes_with_what_is_published_next(self, store: PageStore) -> None:
        put(store, NAME, b"one")
        before = (store.folder / NAME).stat().st_mtime
        put(store, NAME, b"two")
        assert (store.folder / NAME).stat().st_mtime != before
        put(store, NAME, b"one")
        assert (store.folder / NAME).stat().st_mtime == before


class TestPublish:
    def test_a_page_is_there_in_both_encodings(self, store: PageStore) -> None:
        assert not store.has(NAME)
        put(store, NAME)
        assert store.has(NAME)
        assert store.read(NAME) == BODY
        assert gzip.decompress(store.read(f"{NAME}.gz")) == BODY
        assert files(store) == {NAME, f"{NAME}.gz"}

    def test_what_is_not_to_be_compressed_is_there_alone(self, store: PageStore) -> None:
        put(store, "+metadata/pypi/stable/+f/0/1/six.whl.metadata", compress=False)
        assert files(store) == {"+metadata/pypi/stable/+f/0/1/six.whl.metadata"}

    def test_the_same_body_is_compressed_to_the_same_bytes(self, store: PageStore) -> None:
        put(store, "a/b/+simple/one.html")
        put(store, "a/b/+simple/two.html")
        assert store.read("a/b/+simple/one.html.gz") == store.read("a/b/+simple/two.html.gz")

    def test_nothing_is_seen_before_it_is_published(self, store: PageStore) -> None:
        with store.prepared(NAME, BODY, compress=True) as prepared:
            assert not store.has(NAME)
            assert list(prepared) == [f"{NAME}.gz", NAME]
            assert all(WORK in path.parts for path in prepared.values())
        assert files(store) == set()
        assert store.sizes == {}

    def test_the_compressed_one_comes_first_since_the_plain_one_is_what_is_looked_for(
        self, store: PageStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        placed = []
        rename = Path.rename

        def watched(path: Path, target: Path) -> Path:
            made = rename(path, target)
            placed.append((target.name, files(store) - {str(path.relative_to(store.folder))}))
            return made

        with store.prepared(NAME, BODY, compress=True) as prepared:
            monkeypatch.setattr(Path, "rename", watched)
            store.publish(prepared)
        assert [name for name, _ in placed] == ["six.html.gz", "six.html"]
        assert NAME not in placed[0][1]

    def test_a_reader_never_sees_half_of_one(self, store: PageStore) -> None:
        """While two bodies take turns, whoever reads gets one of them whole."""
        bodies = {letter * 200_000 for letter in (b"a", b"b")}
        over, seen = threading.Event(), set()
        put(store, NAME, b"a" * 200_000)

        def read() -> None:
            while not over.is_set():
                seen.add(store.read(NAME))

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for body in [*bodies] * 20:
                put(store, NAME, body)
        finally:
            over.set()
            reader.join()
        assert seen <= bodies

    def test_a_process_that_dies_at_work_leaves_nothing_that_counts_or_is_served(self, store: PageStore) -> None:
        put(store, NAME)
        (store.folder / WORK / "4711-0").write_bytes(BODY)
        again = PageStore(store.folder, 1_000_000)
        assert set(again.sizes) == {NAME, f"{NAME}.gz"}
        assert f"{WORK}/4711-0" not in again.sizes

    def test_an_error_in_between_leaves_no_work_files(self, store: PageStore) -> None:
        with pytest.raises(RuntimeError), store.prepared(NAME, BODY, compress=True):
            raise RuntimeError("the database changed")
        assert files(store) == set()

    @pytest.mark.parametrize("place", [WORK, "pypi/stable"])
    def test_a_disk_that_cannot_be_written_is_told_and_leaves_no_work_files(self, place: str) -> None:
        with public_folder() as folder:
            folder.chmod(0o777)
            with unprivileged():
                store = PageStore(folder / "public", 1_000_000)
                put(store, NAME)
                blocked = store.folder / place
                blocked.chmod(0o555)
                try:
                    with pytest.raises(PermissionError):
                        put(store, "pypi/stable/other/six.html")
                finally:
                    blocked.chmod(0o755)
                assert files(store) == {NAME, f"{NAME}.gz"}

    def test_a_disk_that_takes_no_more_is_told_and_leaves_no_work_files(self, store: PageStore) -> None:
        put(store, NAME)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                put(store, "pypi/stable/+simple/big.html", b"x" * 100_000)  # the compressed one is there by then
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert files(store) == {NAME, f"{NAME}.gz"}
        assert set(store.sizes) == {NAME, f"{NAME}.gz"}
        put(store, "pypi/stable/+simple/small.html")
        assert store.has("pypi/stable/+simple/small.html")


class TestRoom:
    def total(self, store: PageStore) -> int:
        return sum((store.folder / name).stat().st_size for name in files(store))

    def test_what_was_written_longest_ago_goes_first(self, tmp_path: Path) -> None:
        store = PageStore(tmp_path / "public", 10_000)
        for number in range(10):
            put(store, f"a/b/+simple/p{number}.html", b"x" * 1000, compress=False)
        assert len(files(store)) == 10
        put(store, "a/b/+simple/p10.html", b"x" * 1000, compress=False)
        assert files(store) == {f"a/b/+simple/p{number}.html" for number in range(2, 11)}
        assert sum(store.sizes.values()) == self.total(store) == 9000

    def test_what_is_written_again_is_young_again(self, tmp_path: Path) -> None:
        store = PageStore(tmp_path / "public", 3000)
        for name in ("one", "two", "three", "one", "four"):
            put(store, name, b"x" * 1000, compress=False)
        assert files(store) == {"one", "four"}

    def test_it_never_takes_more_than_its_limit_and_counts_what_it_has(self, tmp_path: Path) -> None:
        store = PageStore(tmp_path / "public", 50_000)
        for number in range(60):
            put(store, f"a/b/+simple/p{number % 17}.html", os.urandom(500 + 97 * number))
            assert sum(store.sizes.values()) == self.total(store) <= 50_000

    def test_a_page_in_the_place_of_another_is_counted_once(self, store: PageStore) -> None:
        for size in (1000, 3000, 2000):
            put(store, NAME, b"x" * size, compress=False)
        assert store.sizes == {NAME: 2000}

    def test_both_encodings_of_the_new_page_stay(self, tmp_path: Path) -> None:
        store = PageStore(tmp_path / "public", 4000)
        put(store, "one", os.urandom(1500))
        put(store, "two", os.urandom(1500))
        assert files(store) == {"two", "two.gz"}

    def test_an_aged_page_makes_room_too(self, tmp_path: Path) -> None:
        store = PageStore(tmp_path / "public", 2000)
        put(store, "one", b"x" * 1000, compress=False)
        store.age("one")
        put(store, "two", b"x" * 1500, compress=False)
        assert files(store) == {"two"}
        assert store.sizes == {"two": 1500}


class TestRemove:
    def test_takes_a_page_away(self, store: PageStore) -> None:
        put(store, NAME)
        store.remove(NAME)
        assert not store.has(NAME)
        assert files(store) == {f"{NAME}.gz"}
        assert set(store.sizes) == {f"{NAME}.gz"}

    def test_takes_an_aged_one_away_for_good(self, store: PageStore) -> None:
        put(store, NAME, compress=False)
        store.age(NAME)
        store.remove(NAME)
        assert not store.revive(NAME)
        assert files(store) == set()

    def test_of_what_is_not_there_is_no_error(self, store: PageStore) -> None:
        store.remove(NAME)
        store.remove("no/such/folder/at-all.html")


class TestAge:
    def test_an_aged_page_is_not_served_until_it_is_revived(self, store: PageStore) -> None:
        put(store, NAME, compress=False)
        before = (store.folder / NAME).stat()
        store.age(NAME)
        assert not store.has(NAME)
        assert files(store) == {NAME + AGED}
        assert store.revive(NAME)
        assert store.read(NAME) == BODY
        after = (store.folder / NAME).stat()
        assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)  # so its ETag is what it was

    def test_there_is_nothing_to_revive_that_was_not_aged(self, store: PageStore) -> None:
        assert not store.revive(NAME)
        put(store, NAME)
        assert not store.revive(NAME)
        assert store.has(NAME)

    def test_of_what_is_not_there_is_no_error(self, store: PageStore) -> None:
        store.age(NAME)
        assert files(store) == set()

    def test_a_new_page_in_the_place_of_an_aged_one_is_what_is_served(self, store: PageStore) -> None:
        put(store, NAME, b"old", compress=False)
        store.age(NAME)
        put(store, NAME, b"new", compress=False)
        assert store.read(NAME) == b"new"
        store.remove(NAME)
        assert files(store) == set()


class TestCount:
    def test_finds_what_another_process_left(self, store: PageStore) -> None:
        put(store, NAME)
        put(store, "a/b/+simple.json", b"{}", compress=False)
        assert dict(PageStore(store.folder, 1_000_000).sizes) == dict(store.sizes)

    def test_knows_what_is_oldest(self, tmp_path: Path) -> None:
        store = PageStore(tmp_path / "public", 4000)
        for name in ("c", "a", "d", "b"):
            put(store, name, b"x" * 1000, compress=False)
            assert poll(functools.partial(is_over, store.folder / name), 5, 0.001)
        again = PageStore(store.folder, 4000)
        assert list(again.sizes) == ["c", "a", "d", "b"]
        put(again, "e", b"x" * 1000, compress=False)
        assert files(again) == {"d", "b", "e"}

    def test_knows_aged_files_by_their_names(self, store: PageStore) -> None:
        put(store, NAME)
        before = dict(store.sizes)
        store.age(NAME)
        store.age(f"{NAME}.gz")
        again = PageStore(store.folder, 1_000_000)
        assert again.sizes == before
        assert again.revive(NAME)
        again.remove(NAME)
        again.remove(f"{NAME}.gz")
        assert files(again) == set()

    def test_takes_the_files_of_an_index_for_devpis(self, store: PageStore, tmp_path: Path) -> None:
        """They are behind links, and none of the limit's business."""
        (tmp_path / "+files" / "0a1").mkdir(parents=True)
        (tmp_path / "+files" / "0a1" / "six.whl").write_bytes(b"x" * 5000)
        put(store, NAME, compress=False)
        store.link("pypi/stable/+f", tmp_path / "+files")
        assert list(PageStore(store.folder, 1_000_000).sizes) == [NAME]

    def test_of_a_folder_that_is_not_there_is_nothing(self, tmp_path: Path) -> None:
        assert PageStore(tmp_path / "none", 1_000_000).sizes == {}


class TestLinks:
    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Path:
        folder = tmp_path / "+files"
        folder.mkdir()
        (folder / "six.whl").write_bytes(b"wheel")
        return folder

    def test_a_folder_elsewhere_is_served_under_the_name(self, store: PageStore, elsewhere: Path) -> None:
        for _ in range(2):
            store.link("pypi/stable/+f", elsewhere)
            assert (store.folder / "pypi" / "stable" / "+f" / "six.whl").read_bytes() == b"wheel"

    def test_what_they_point_to_stays_when_they_go(self, store: PageStore, elsewhere: Path) -> None:
        store.link("pypi/stable/six/1.0/+doc", elsewhere)
        store.unlink_below("pypi/stable/six")
        assert not (store.folder / "pypi" / "stable" / "six").exists()
        store.link("pypi/stable/+f", elsewhere)
        store.clear()
        assert not (store.folder / "pypi").exists()
        assert poll(lambda: list(store.folder.parent.glob("public.*")) == [], 20)
        assert (elsewhere / "six.whl").read_bytes() == b"wheel"

    def test_of_nothing_is_no_error(self, store: PageStore) -> None:
        store.unlink_below("pypi/stable/six")


class TestIndexes:
    def test_are_those_that_have_something_here(self, store: PageStore) -> None:
        put(store, "pypi/stable/+simple/six.html")
        put(store, "root/pypi/+simple.json")
        put(store, "+metadata/team/dev/+f/0/1/six.whl.metadata")
        assert sorted(store.indexes()) == ["pypi/stable", "root/pypi"]

    def test_are_none_at_the_start(self, store: PageStore) -> None:
        assert store.indexes() == []


class TestClear:
    def test_everything_is_gone_at_once_and_what_comes_next_is_kept(self, store: PageStore) -> None:
        put(store, NAME)
        store.clear()
        assert files(store) == set()
        assert store.sizes == {}
        assert store.folder.is_dir()
        put(store, NAME)
        assert store.has(NAME)
        assert poll(lambda: list(store.folder.parent.iterdir()) == [store.folder], 20)

    def test_what_was_being_prepared_is_not_kept(self, store: PageStore) -> None:
        """Whoever is about to publish finds its files gone, and no page, rather than an old one."""
        with pytest.raises(FileNotFoundError), store.prepared(NAME, BODY, compress=True) as prepared:
            store.clear()
            store.publish(prepared)
        assert files(store) == set()

    def test_of_nothing_is_no_error(self, tmp_path: Path) -> None:
        store = PageStore(tmp_path / "deep" / "public", 1_000_000)
        store.clear()
        assert store.folder.is_dir()

    def test_what_a_killed_process_had_no_time_to_remove_goes_too(self, store: PageStore) -> None:
        """In a container every start has the same process id."""
        script = (
            "import os, page_store, shutil, sys; from pathlib import Path; shutil.rmtree = lambda *args, **named: os._exit(9)"
        )
        argv = [sys.executable, "-c", f"{script}; page_store.PageStore(Path(sys.argv[1]), 1).clear()", str(store.folder)]
        put(store, NAME)
        subprocess.run(argv, cwd=ROOT / "pypi_server")
        left = [path for path in store.folder.parent.iterdir() if path != store.folder]
        assert len(left) == 1 and (left[0] / NAME).exists() and not store.has(NAME)
        put(store, NAME)
        store.clear()
        assert poll(lambda: list(store.folder.parent.iterdir()) == [store.folder], 20)

    def test_from_the_command_line_empties_the_folder_under_a_running_server(self, store: PageStore) -> None:
        put(store, NAME)
        argv = [sys.executable, str(ROOT / "pypi_server" / "page_store.py")]
        subprocess.run(argv, check=True, env={**os.environ, "DEVPI_PAGES": str(store.folder)})
        assert list(store.folder.parent.iterdir()) == [store.folder]
        assert not store.has(NAME)
        put(store, NAME)
        assert store.read(NAME) == BODY

    def test_twice_in_a_row_is_no_error(self, store: PageStore) -> None:
        for _ in range(3):
            put(store, NAME)
            store.clear()
        assert files(store) == set()


class TestAFolderThatSomebodyDeletes:
    """`rm -r` on the host, while the server runs: pages are made anew, nothing fails."""

    def test_is_made_anew(self, store: PageStore) -> None:
        put(store, NAME)
        shutil.rmtree(store.folder)
        assert not store.has(NAME)
        assert not store.revive(NAME)
        store.age(NAME)
        store.remove(NAME)
        put(store, NAME)
        assert store.read(NAME) == BODY

    @pytest.mark.parametrize("deleted", ["", "pypi", "pypi/stable/+simple", WORK])
    def test_may_go_in_part(self, store: PageStore, deleted: str) -> None:
        put(store, NAME)
        shutil.rmtree(store.folder / deleted)
        store.link("pypi/stable/+f", store.folder.parent)
        put(store, NAME, b"new")
        assert store.read(NAME) == b"new"

    def test_may_go_while_pages_are_written(self, store: PageStore) -> None:
        """An error may reach the one who writes just then; the next one writes again."""
        over = threading.Event()

        def delete() -> None:
            while not over.is_set():
                shutil.rmtree(store.folder, ignore_errors=True)

        vandal = threading.Thread(target=delete)
        vandal.start()
        try:
            for number in range(100):
                with contextlib.suppress(OSError):
                    put(store, f"a/b/+simple/p{number}.html")
        finally:
            over.set()
            vandal.join()
        put(store, NAME)
        assert store.read(NAME) == BODY
        assert not [name for name in files(store) if name.startswith(WORK)]


class TestNumbers:
    def test_of_work_files_are_no_two_the_same(self, store: PageStore) -> None:
        """Several requests prepare at once, without the lock."""
        with store.prepared("one", b"1", compress=True) as one, store.prepared("two", b"2", compress=True) as two:
            paths = [*one.values(), *two.values()]
            assert len(set(paths)) == 4
            store.publish(two)
            store.publish(one)
        assert [store.read(name) for name in ("one", "two")] == [b"1", b"2"]

    def test_many_threads_at_once_leave_what_they_wrote(self, store: PageStore) -> None:
        names = [f"a/b/+simple/p{number}.html" for number in range(40)]
        threads = [threading.Thread(target=put, args=(store, name, name.encode())) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(store.read(name) == name.encode() for name in names)
        assert files(store) == set(itertools.chain.from_iterable((name, f"{name}.gz") for name in names))
