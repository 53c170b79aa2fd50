"""New secrets on a real server: the old ones are refused, and a rotation that was cut off anywhere comes to an end."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from provision import Login
from provision import Server as Devpi

from pypi_tasks import deployment, native, rotate, secret
from pypi_tasks.deployment import await_health
from pypi_tasks.errors import BadInput, Failed
from pypi_tasks.settings import Settings
from pypi_tasks.world import World
from tests.helpers import settings_of, told
from tests.workspace import free_port


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The settings of a native server that is up."""
    text = f"CA_BUNDLE={os.environ.get('REQUESTS_CA_BUNDLE', '')}\n"
    made = settings_of(tmp_path_factory.mktemp("rotate"), text, DEVPI_PORT=str(free_port()))
    server = native.Server(World(), made)
    deployment.up(World(), made, server, 60)
    yield made
    server.stop()


@pytest.fixture
def devpi(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Devpi:
    monkeypatch.setenv("DEVPISERVER_PORT", str(settings.devpi_port))
    return Devpi()


def server_of(settings: Settings, dry: bool = False) -> native.Server:
    return native.Server(World(dry=dry), settings)


def run(settings: Settings, only: str = "", yes: bool = False, dry: bool = False) -> None:
    rotate.rotate(World(dry=dry), settings, server_of(settings, dry), only, yes)


def up(settings: Settings) -> None:
    deployment.up(World(), settings, server_of(settings), 60)


def values(settings: Settings) -> dict[str, str]:
    """The secrets as they are now; what was put aside is not one of them."""
    files = [file for file in settings.secrets_home.iterdir() if ".before-" not in file.name]
    return {file.name: file.read_text(encoding="utf-8").strip() for file in files}


def kept(settings: Settings, name: str) -> set[str]:
    """The old ones that were put aside."""
    return {file.read_text().strip() for file in settings.secrets_home.glob(f"{name}.before-*")}


def modes(settings: Settings) -> set[int]:
    return {file.stat().st_mode & 0o777 for file in settings.secrets_home.iterdir()}


class TestPasswords:
    def test_both_are_new_and_the_old_ones_are_refused(
        self, settings: Settings, devpi: Devpi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = values(settings)
        inodes = {name: (settings.secrets_home / name).stat().st_ino for name in before}
        capsys.readouterr()
        run(settings)
        shown = "".join(capsys.readouterr())
        after = values(settings)
        assert set(after) == set(before) and modes(settings) == {0o600}
        assert after["server_secret"] == before["server_secret"]
        for user, name in (("root", "root_password"), ("pypi", "user_password")):
            assert after[name] != before[name] and before[name] in kept(settings, name)
            assert devpi.accepts(Login(user, after[name])) and not devpi.accepts(Login(user, before[name]))
        assert inodes == {name: (settings.secrets_home / name).stat().st_ino for name in before}  # they are mounted
        assert not [value for value in {*before.values(), *after.values()} if value in shown]
        assert str(settings.secrets_home / "root_password") in shown

    def test_only_the_one_that_is_named(self, settings: Settings, devpi: Devpi) -> None:
        before = values(settings)
        run(settings, "user")
        after = values(settings)
        assert {name for name in before if before[name] != after[name]} == {"user_password"}
        assert devpi.accepts(Login("pypi", after["user_password"]))

    def test_a_login_lasts_as_the_readme_says(self, settings: Settings, devpi: Devpi) -> None:
        """devpi signs a login with the server's secret and the user's name: another password leaves it as it is."""
        _, answer = devpi.call("POST", "/+login", {"user": "pypi", "password": values(settings)["user_password"]})
        login = Login("pypi", answer["result"]["password"])

        def status() -> object:
            return devpi.call("GET", "/+api", login=login)[1]["result"]["authstatus"][0]

        run(settings)
        assert status() == "ok"
        run(settings, "server", yes=True)
        assert status() != "ok"


class TestCutOff:
    """Power fails at one point or the other; the file beside is there, and the next task asks the server."""

    @pytest.mark.parametrize(("kind", "finish"), [("root", up), ("user", run)])
    def test_before_the_server_was_told(
        self, settings: Settings, devpi: Devpi, kind: str, finish: Callable[[Settings], None]
    ) -> None:
        file = rotate.file_of(settings, kind).path
        before = values(settings)
        rotate.beside(file).write_text("never-sent\n")
        finish(settings)
        after = values(settings)
        assert set(after) == set(before)
        assert devpi.accepts(Login(rotate.user_of(settings, kind), after[file.name]))
        assert "never-sent" not in after.values()
        assert finish is not up or after == before

    @pytest.mark.parametrize(("kind", "rest"), [("root", "stored"), ("root", ""), ("user", "half")])
    def test_after_the_server_was_told(self, settings: Settings, devpi: Devpi, kind: str, rest: str) -> None:
        """Also where the file was being written just then, and is empty or half of it is there."""
        file = rotate.file_of(settings, kind).path
        old, new = values(settings)[file.name], f"new-of-{kind}-{rest}"
        root = Login("root", values(settings)["root_password"])
        rotate.beside(file).write_text(f"{new}\n")
        devpi.change("PATCH", f"/{rotate.user_of(settings, kind)}", {"password": new}, root)
        file.write_text({"stored": f"{old}\n", "": "", "half": new[:5]}[rest])
        up(settings)
        after = values(settings)
        assert rest != "stored" or old in kept(settings, file.name)
        assert after[file.name] == new and f"{file.name}.new" not in after and modes(settings) == {0o600}

    def test_a_server_that_knows_neither_leaves_both_where_they_are(self, settings: Settings) -> None:
        file = rotate.file_of(settings, "user").path
        right = file.read_text()
        file.write_text("wrong\n")
        rotate.beside(file).write_text("wrong-too\n")
        with pytest.raises(Failed, match="the stored password of user pypi is not the server's"):
            up(settings)
        assert values(settings)["user_password.new"] == "wrong-too"
        with pytest.raises(Failed, match=r"neither .*user_password nor .*user_password.new has the server's password"):
            run(settings, "user")
        assert values(settings)["user_password.new"] == "wrong-too"
        file.write_text(right)
        up(settings)
        assert "user_password.new" not in values(settings)

    def test_of_restored_data_those_from_before_are_found_again(
        self, settings: Settings, devpi: Devpi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = values(settings)
        run(settings)
        since = values(settings)
        for kind, name in (("user", "user_password"), ("root", "root_password")):
            login = Login("root", since["root_password"])
            devpi.change("PATCH", f"/{rotate.user_of(settings, kind)}", {"password": before[name]}, login)
        capsys.readouterr()
        up(settings)
        assert values(settings) == before and "user root has a password from before" in capsys.readouterr().out
        assert all(since[name] in kept(settings, name) for name in ("root_password", "user_password"))
        assert rotate.recall(World(), settings, server_of(settings)) == [] and modes(settings) == {0o600}

    def test_whose_password_nobody_knows_is_named(self, settings: Settings, devpi: Devpi) -> None:
        right = values(settings)["user_password"]
        root = Login("root", values(settings)["root_password"])
        devpi.change("PATCH", "/pypi", {"password": "another"}, root)
        assert rotate.recall(World(), settings, server_of(settings)) == ["pypi"]
        assert values(settings)["user_password"] == right
        devpi.change("PATCH", "/pypi", {"password": right}, root)

    def test_what_the_server_does_not_take_leaves_the_stored_one(self, settings: Settings, devpi: Devpi) -> None:
        path = rotate.file_of(settings, "root").path
        right = path.read_text()
        path.write_text("wrong\n")
        with pytest.raises(Failed, match="is not the server's"):
            run(settings, "root")
        path.write_text(right)
        up(settings)
        assert devpi.accepts(Login("root", right.strip()))


class TestServerSecret:
    def test_it_is_new_and_passwords_stay(self, settings: Settings, devpi: Devpi) -> None:
        before = values(settings)
        run(settings, "server", yes=True)
        await_health(World(), server_of(settings), 60)
        after = values(settings)
        assert {name for name in before if before[name] != after[name]} == {"server_secret"}
        assert devpi.accepts(Login("pypi", after["user_password"]))

    def test_without_a_yes_nothing_is_changed(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        before = values(settings)
        monkeypatch.setattr("builtins.input", lambda _: "no")
        with pytest.raises(BadInput, match="nothing was changed"):
            run(settings, "server")
        assert values(settings) == before


class TestRefused:
    def test_a_password_that_a_setting_would_bring_back(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, "PYPI_PASSWORD=hunter2\n", ROOT_PASSWORD="hunter3")
        for only, name, where in (("", "ROOT_PASSWORD", "environment"), ("user", "PYPI_PASSWORD", ".env line 3")):
            with pytest.raises(BadInput) as caught:
                run(settings, only)
            assert f"{name} is set ({where})" in told(caught) and "hunter" not in told(caught)
        assert not settings.secrets_home.exists()

    def test_what_is_no_secret_of_ours(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput, match="expected root, user or server"):
            run(settings_of(tmp_path), "rot")

    def test_a_server_that_is_not_up(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, DEVPI_PORT=str(free_port()))
        secret.settle(World(), settings, None)
        before = values(settings)
        with pytest.raises(Failed, match="is not up"):
            run(settings)
        assert values(settings) == before

    def test_a_dry_run_tells_and_changes_nothing(self, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
        before = values(settings)
        capsys.readouterr()
        for only in ("", "server"):
            run(settings, only, dry=True)
        shown = capsys.readouterr().out
        assert values(settings) == before
        assert f"would: write secret {settings.secrets_home / 'root_password.new'}" in shown
        assert "\nnew: " not in shown
