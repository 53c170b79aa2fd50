"""Take-overs by the native server: devpi's directory as a verified copy or moved, and a folder of distributions."""

import contextlib
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import requests
from provision import Login, Server

from pypi_tasks import distribution, native, simple_index
from pypi_tasks.adopt import adopt
from pypi_tasks.deployment import await_health, up, wish
from pypi_tasks.errors import BadInput, Failed, NotReady
from pypi_tasks.private_index import Index
from pypi_tasks.secret import settle
from pypi_tasks.settings import Settings
from pypi_tasks.world import World
from tests.helpers import settings_of, told
from tests.packages import build_wheel
from tests.upstream import Upstream
from tests.workspace import free_port

VERSIONS = ("1.0", "1.1", "1.2")


def settings_in(folder: Path) -> Settings:
    folder.mkdir(parents=True, exist_ok=True)
    bundle = f"CA_BUNDLE={os.environ.get('REQUESTS_CA_BUNDLE', '')}\nBACKUP_HOME={folder / 'backups'}\n"
    return settings_of(folder, bundle, DEVPI_PORT=str(free_port()))


def take(
    settings: Settings, source: object, index: str = "", in_place: bool = False, dry: bool = False, projects: str = ""
) -> None:
    world = World(dry=dry)
    adopt(world, settings, native.Server(world, settings), str(source), index, projects, in_place)


def stored(server: Path) -> dict[str, bytes]:
    """The files of a server directory, path below +files and content."""
    files = server / "+files"
    return {str(path.relative_to(files)): path.read_bytes() for path in sorted(files.rglob("*")) if path.is_file()}


@contextlib.contextmanager
def upstream_here() -> Iterator[Upstream]:
    """An index of another kind on this host."""
    with Upstream("127.0.0.1") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A native server with three releases of a package; it goes on while others copy from it."""
    folder = tmp_path_factory.mktemp("source")
    made = settings_in(folder)
    server = native.Server(World(), made)
    assert wish(made)["user"] == "pypi"
    up(World(), made, server, 60)
    try:
        (folder / "wheels").mkdir()
        with Index(made) as index:
            for version in VERSIONS:
                assert index.upload(distribution.read(build_wheel(folder / "wheels", version))) == ""
        yield made
    finally:
        server.stop()


@pytest.fixture
def source(running: Settings, tmp_path: Path) -> Path:
    """A copy of that server's directory to do harm to, made by the task itself."""
    settings = settings_in(tmp_path / "first")
    take(settings, running.devpi_home)
    return settings.devpi_home / "server"


class TestServerDirectory:
    def test_a_running_servers_is_copied_whole_and_left_as_it_is(
        self, running: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        original = running.devpi_home / "server"
        before = stored(original)
        settings = settings_in(tmp_path)
        take(settings, running.devpi_home)
        assert stored(settings.devpi_home / "server") == stored(original) == before
        assert sum(path.endswith(".whl") for path in before) == len(VERSIONS)
        shown = capsys.readouterr().out
        assert "each compared with the database's digest" in shown and "Next: inv up --env local" in shown
        assert "ROOT_PASSWORD=... PYPI_PASSWORD=..." in shown
        assert not (settings.devpi_home / "server.adopting").exists()

    def test_an_interrupted_copy_goes_on_and_what_is_half_there_is_copied_anew(self, source: Path, tmp_path: Path) -> None:
        settings = settings_in(tmp_path / "second")
        half = settings.devpi_home / "server.adopting"
        shutil.copytree(source / "+files", half / "+files")
        wheels = sorted((half / "+files").rglob("*.whl"))
        whole, torn, gone = wheels
        time = whole.stat().st_mtime_ns
        torn.write_bytes(torn.read_bytes()[:-10])
        gone.unlink()
        (half / "+files" / "other.whl").write_bytes(b"of an earlier attempt")
        take(settings, source)
        assert stored(settings.devpi_home / "server") == stored(source)
        assert (settings.devpi_home / "server" / whole.relative_to(half)).stat().st_mtime_ns == time

    def test_one_that_lacks_uploaded_files_is_not_served_until_they_are_back(self, source: Path, tmp_path: Path) -> None:
        gone, damaged, _ = sorted((source / "+files").rglob("*.whl"))
        before = stored(source)
        gone.unlink()
        damaged.write_bytes(b"x" * damaged.stat().st_size)
        settings = settings_in(tmp_path / "second")
        with pytest.raises(Failed) as caught:
            take(settings, source)
        said = told(caught)
        assert "2 uploaded files cannot be taken, so nothing is served yet; what was copied is kept in" in said
        assert f"{gone.relative_to(source / '+files')}: the file is not there" in said
        assert f"{damaged.name}: its content is not what devpi's database says" in said and "devpi remove" in said
        assert not (settings.devpi_home / "server").exists() and (settings.devpi_home / "server.adopting").exists()
        for path, content in before.items():
            (source / "+files" / path).write_bytes(content)
        take(settings, source)
        assert stored(settings.devpi_home / "server") == before
        assert not (settings.devpi_home / "server.adopting").exists()

    def test_a_copy_without_any_files_is_told_by_the_first_of_them(self, source: Path, tmp_path: Path) -> None:
        shutil.rmtree(source / "+files")
        with pytest.raises(Failed) as caught:
            take(settings_in(tmp_path / "second"), source)
        assert f"{len(VERSIONS)} uploaded files cannot be taken" in told(caught)

    def test_one_that_a_killed_server_left_half_done_is_copied_as_it_was_before(self, source: Path, tmp_path: Path) -> None:
        database = sqlite3.connect(source / ".sqlite", isolation_level=None)
        serial = database.execute("SELECT MAX(serial) FROM changelog").fetchone()[0]
        database.execute("PRAGMA cache_size = 1")
        database.execute("BEGIN IMMEDIATE")
        database.execute("DELETE FROM changelog")  # spills to the file, with a journal of what was there
        killed = tmp_path / "killed"
        shutil.copytree(source, killed)
        database.execute("ROLLBACK")
        database.close()
        assert (killed / ".sqlite-journal").exists()
        settings = settings_in(tmp_path / "second")
        take(settings, killed)
        copy = sqlite3.connect(settings.devpi_home / "server" / ".sqlite")
        assert copy.execute("SELECT MAX(serial) FROM changelog").fetchone()[0] == serial
        copy.close()
        assert (killed / ".sqlite-journal").exists()

    def test_in_place_moves_it_after_a_look_at_all_of_it(self, source: Path, tmp_path: Path) -> None:
        before = stored(source)
        settings = settings_in(tmp_path / "second")
        take(settings, source, in_place=True)
        assert not source.exists() and stored(settings.devpi_home / "server") == before

    def test_one_that_lacks_uploaded_files_is_not_moved(self, source: Path, tmp_path: Path) -> None:
        for path in (source / "+files").rglob(f"*{VERSIONS[-1]}*"):
            path.unlink()
        with pytest.raises(Failed) as caught:
            take(settings_in(tmp_path / "second"), source, in_place=True)
        assert "1 uploaded files cannot be taken" in told(caught) and source.exists()

    def test_a_running_one_is_not_moved(self, running: Settings, tmp_path: Path) -> None:
        with pytest.raises(NotReady) as caught:
            take(settings_in(tmp_path), running.devpi_home, in_place=True)
        assert "a server is running on" in told(caught)
        assert (running.devpi_home / "server").exists()

    def test_a_mirrors_file_that_is_lost_is_fetched_again(
        self, running: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DEVPISERVER_PORT", str(running.devpi_port))
        root = Login("root", (running.secrets_home / "root_password").read_text().strip())
        with upstream_here() as upstream:
            file = upstream.add("theirs", "1.0")
            options = {"type": "mirror", "mirror_url": f"{upstream.url}/simple/", "mirror_no_project_list": True}
            Server().change("PUT", "/root/other", options, root)
            page = requests.get(f"{running.url}/root/other/+simple/theirs/", headers={"Accept": simple_index.JSON}, timeout=60)
            (link,) = simple_index.links(page)
            assert requests.get(link.url, timeout=60).status_code == 200  # devpi's last commit, without which it does not start
        first = settings_in(tmp_path / "first")
        take(first, running.devpi_home)
        Server().change("DELETE", "/root/other", {}, root)
        source = first.devpi_home / "server"
        next((source / "+files").rglob(file)).unlink()
        with pytest.raises(Failed) as caught:
            take(settings_in(tmp_path / "moved"), source, in_place=True)
        assert f"{file}, a file of its last commit: have it copied, not moved" in told(caught)
        settings = settings_in(tmp_path / "second")
        take(settings, source)
        assert "1 files of mirrors were not there or damaged; the server fetches them again" in capsys.readouterr().out
        settle(World(), settings, None)
        server = native.Server(World(), settings)
        try:
            server.start()
            await_health(World(), server, 60)
        finally:
            server.stop()

    def test_one_on_which_another_kit_runs_is_not_moved(self, source: Path, tmp_path: Path) -> None:
        with (source / ".sqlite").open("rb"), pytest.raises(NotReady) as caught:
            take(settings_in(tmp_path / "second"), source, in_place=True)
        assert f"process {os.getpid()} has its database open" in told(caught) and source.exists()

    def test_nothing_takes_the_place_of_data_that_is_there(self, running: Settings, source: Path) -> None:
        settings = settings_in(source.parent.parent)
        before = stored(source)
        with pytest.raises(NotReady) as caught:
            take(settings, running.devpi_home)
        assert f"there is a server's data already, in {source}." in told(caught) and "another DEVPI_HOME" in told(caught)
        assert stored(source) == before

    @pytest.mark.parametrize(
        ("file", "text", "said"),
        [
            (".serverversion", "3", "its database is of version 3, expected 4"),
            (".serverversion", "", "its .serverversion is missing or empty: an incomplete copy?"),
            (".serverversion", None, "its .serverversion is missing or empty: an incomplete copy?"),
            (".nodeinfo", None, "it has no .nodeinfo; use devpi-export"),
            (".nodeinfo", '{"role": ', "its .nodeinfo cannot be understood: an incomplete copy?"),
            (".nodeinfo", json.dumps({"role": "replica"}), "it is a replica"),
            (".sqlite", None, "its database is not SQLite's"),
            (".sqlite", "no database", "its database cannot be read"),
        ],
    )
    def test_what_cannot_be_served_is_refused_with_the_way_that_there_is(
        self, source: Path, tmp_path: Path, file: str, text: str | None, said: str
    ) -> None:
        (source / file).unlink()
        if text is not None:
            (source / file).write_text(text)
        settings = settings_in(tmp_path / "second")
        with pytest.raises(Failed) as caught:
            take(settings, source)
        assert said in told(caught)
        assert not list(settings.devpi_home.glob("server*"))

    def test_a_dry_run_changes_nothing(self, running: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        settings = settings_in(tmp_path)
        take(settings, running.devpi_home, dry=True)
        assert "adopt.py" in capsys.readouterr().out
        assert not settings.devpi_home.exists()


class TestFolder:
    def test_distributions_are_uploaded_once_and_the_rest_is_told(
        self, running: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "packages"
        (folder / "below").mkdir(parents=True)
        build_wheel(folder / "below", "2.0")
        shutil.copy(running.devpi_home.parent / "wheels" / f"pypi_tasks_smoke-{VERSIONS[0]}-py3-none-any.whl", folder)
        take_expected = "1 files taken into pypi/stable, each found there by its sha256; 1 were there already"
        take(running, folder)
        assert take_expected in capsys.readouterr().out
        (folder / "broken-1.0-py3-none-any.whl").write_bytes(b"PK\x03\x04 and no more")
        (folder / "notes.txt").write_text("not one")
        other = folder / f"pypi_tasks_smoke-{VERSIONS[1]}-py3-none-any.whl"
        build_wheel(folder, VERSIONS[1])
        other.write_bytes(other.read_bytes() + b"\0")
        with pytest.raises(Failed) as caught:
            take(running, folder)
        assert "2 were not taken; the rest was." in told(caught)
        shown = capsys.readouterr().out
        assert "0 files taken into pypi/stable, each found there by its sha256; 2 were there already" in shown
        assert "conflict: pypi/stable has another content under this name" in shown
        assert "it cannot be read" in shown and "1 other files are no distributions" in shown

    @pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?")])
    def test_a_content_that_the_server_lost_comes_back(
        self, running: Settings, tmp_path: Path, damage: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
    ) -> None:
        name = f"pypi_tasks_smoke-{VERSIONS[2]}-py3-none-any.whl"
        (there,) = (running.devpi_home / "server" / "+files").rglob(name)
        mine = Path(shutil.copy(running.devpi_home.parent / "wheels" / name, tmp_path))
        damage(there)
        take(running, tmp_path)
        assert "1 files taken into pypi/stable" in capsys.readouterr().out and there.read_bytes() == mine.read_bytes()
        take(running, tmp_path)
        assert "1 were there already" in capsys.readouterr().out
        assert [path.name for path in there.parent.iterdir()] == [name]

    def test_the_files_of_several_of_devpis_indexes_are_not_taken_as_one(self, running: Settings, tmp_path: Path) -> None:
        files = tmp_path / "+files"
        shutil.copytree(running.devpi_home / "server" / "+files" / "pypi", files / "pypi")
        (files / "root" / "pypi" / "+f").mkdir(parents=True)
        with pytest.raises(BadInput) as caught:
            take(running, files)
        assert "several of devpi's indexes, pypi/stable, root/pypi" in told(caught)
        assert f"inv adopt {files / 'pypi' / 'stable'}" in told(caught)
        take(running, files / "pypi" / "stable")

    def test_what_only_looks_like_one_is_told_a_line_each(
        self, running: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "packages"
        (folder / "folder-1.0-py3-none-any.whl").mkdir(parents=True)
        (folder / "link-1.0-py3-none-any.whl").symlink_to(tmp_path / "nowhere")
        os.mkfifo(folder / "pipe-1.0.tar.gz")
        (folder / "two\nlines-1.0.tar.gz").write_text("no archive")
        with pytest.raises(Failed) as caught:
            take(running, folder)
        assert "4 were not taken; nothing was." in told(caught)
        rows = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
        assert [row for row in rows if "-1.0" in row] == [
            "folder-1.0-py3-none-any.whl", "link-1.0-py3-none-any.whl", "pipe-1.0.tar.gz", "two lines-1.0.tar.gz",
        ]  # fmt: skip

    def test_a_folder_without_any_is_refused(self, running: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "notes.txt").write_text("not one")
        with pytest.raises(BadInput) as caught:
            take(running, tmp_path)
        assert "has no distributions: expected .whl" in told(caught) and "upload" not in capsys.readouterr().out

    def test_another_index_can_be_named_and_has_to_be_there(self, running: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(BadInput) as caught:
            take(running, running.devpi_home.parent / "wheels", "pypi/none")
        assert "it is no index of this server" in told(caught) and "upload" not in capsys.readouterr().out

    def test_a_mirror_takes_none(self, running: Settings) -> None:
        with pytest.raises(BadInput) as caught:
            take(running, running.devpi_home.parent / "wheels", "root/pypi")
        assert "root/pypi is a mirror" in told(caught)

    def test_a_server_that_is_not_there_is_told_with_what_to_do(self, tmp_path: Path) -> None:
        build_wheel(tmp_path, "1.0")
        settings = settings_in(tmp_path / "settings")
        with pytest.raises(NotReady) as caught:
            take(settings, tmp_path)
        assert "there is no password yet" in told(caught)


class Site(BaseHTTPRequestHandler):
    """An index that sends whoever asks for another page to another host, as pypiserver does; and a page that is no index."""

    PAGES: ClassVar = {
        "/simple/": '<a href="mine/">mine</a><a href="moved/">moved</a>',
        "/simple/mine/": "",
        "/web/simple/": '<a href="/about">About us</a><a href="https://example.org/">a friend</a>',
    }

    def do_GET(self) -> None:
        is_other = self.headers["Host"].startswith("localhost")
        page = '<a href="evil-1.0.tar.gz">evil-1.0.tar.gz</a>' if is_other else self.PAGES.get(self.path)
        self.send_response(303 if page is None else 200)
        if page is None:
            self.send_header("Location", f"http://localhost:{self.headers['Host'].partition(':')[2]}{self.path}")
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write((page or "").encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    """The address of its index."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple/"
        server.shutdown()


class TestIndex:
    @pytest.mark.parametrize("dry", [True, False])
    def test_a_project_that_it_does_not_list_is_a_strangers(self, running: Settings, site: str, dry: bool) -> None:
        with pytest.raises(BadInput) as caught:
            take(running, site, projects="mine,mien,Min.e", dry=dry)
        assert f"{site} does not list mien, min-e." in told(caught)

    def test_a_page_on_another_host_is_not_its(self, running: Settings, site: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(Failed) as caught:
            take(running, site)
        assert "1 were not taken; nothing was." in told(caught)
        shown = capsys.readouterr().out
        assert "its page is on another host, localhost" in shown and "evil" not in shown

    def test_names_that_are_none_do_not_mean_all(self, running: Settings, site: str) -> None:
        with pytest.raises(BadInput) as caught:
            take(running, site, projects=",,")
        assert "--projects names none" in told(caught)

    def test_a_web_page_is_none(self, running: Settings, site: str) -> None:
        with pytest.raises(BadInput) as caught:
            take(running, site.replace("/simple/", "/web/simple/"))
        assert "lists no projects" in told(caught)

    def test_the_reason_why_there_is_no_answer_is_told(self, running: Settings) -> None:
        with pytest.raises(NotReady) as caught:
            take(running, f"http://127.0.0.1:{free_port()}/simple/")
        assert "does not answer: Connection refused." in told(caught)


class TestWords:
    @pytest.mark.parametrize(
        ("source", "index", "in_place", "said"),
        [
            ("", "", False, "inv adopt WHAT"),
            ("/nowhere/at/all", "", False, "there is no such folder"),
            ("/etc/hostname", "", False, "/etc/hostname is a file, not a folder"),
            ("http://[::1/hidden/simple/", "", False, "this URL cannot be understood"),
            ("http://host:99999/hidden/simple/", "", False, "this URL cannot be understood"),
            ("http:///simple/", "", False, "this URL cannot be understood"),
            ("http://host/simple/?token=hidden", "", False, "neither ? nor #"),
            ("ftp://host/simple/", "", False, "ftp:// is not understood"),
            ("HTTP://host/user/index", "", False, "http://host/user/index/+simple/ of devpi's"),
            ("http://user:hidden@host/simple/", "", False, "put it into ~/.netrc"),
            ("http://host/user/index", "", False, "http://host/user/index/+simple/ of devpi's"),
            ("http://host/simple/", "", True, "--in-place is for a devpi server directory"),
            ("http://host/simple/", "stable", False, "expected USER/INDEX"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, tmp_path: Path, source: str, index: str, in_place: bool, said: str) -> None:
        with pytest.raises(BadInput) as caught:
            take(settings_in(tmp_path), source, index, in_place)
        assert said in told(caught) and "hidden" not in told(caught)

    def test_more_projects_than_anybody_has_are_a_mirror(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(simple_index, "page", lambda *_: None)
        monkeypatch.setattr(simple_index, "projects", lambda _: {str(number): "" for number in range(5001)})
        with pytest.raises(BadInput) as caught:
            take(settings_in(tmp_path), "http://host/simple/")
        assert "5,001 projects" in told(caught) and "--projects a,b,c" in told(caught)
