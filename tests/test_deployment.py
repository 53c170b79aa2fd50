"""What all environments share: what is asked of the server, which environment is meant, what a user is told."""

from pathlib import Path

import pytest

from pypi_tasks import deployment, native, stack
from pypi_tasks.errors import BadInput, Failed
from pypi_tasks.world import World
from tests.helpers import settings_of, told
from tests.workspace import free_port


class TestWish:
    def test_a_new_index_gets_the_defaults_and_one_that_is_there_keeps_its_own(self, tmp_path: Path) -> None:
        assert deployment.wish(settings_of(tmp_path)) == {
            "user": "pypi",
            "index": "stable",
            "options": {"bases": ["root/pypi"], "volatile": False, "mirror_whitelist": []},
            "enforce": [],
        }

    def test_what_somebody_set_is_enforced_and_nothing_else(self, tmp_path: Path) -> None:
        found = deployment.wish(settings_of(tmp_path, "DEVPI_VOLATILE=true\n", DEVPI_MIRROR_WHITELIST="one,two"))
        assert found["enforce"] == ["volatile", "mirror_whitelist"]
        assert found["options"] == {"bases": ["root/pypi"], "volatile": True, "mirror_whitelist": ["one", "two"]}

    def test_a_default_that_somebody_set_is_enforced_too(self, tmp_path: Path) -> None:
        assert deployment.wish(settings_of(tmp_path, "DEVPI_BASES=root/pypi\n"))["enforce"] == ["bases"]

    def test_user_and_index_are_the_settings(self, tmp_path: Path) -> None:
        found = deployment.wish(settings_of(tmp_path, DEVPI_USER="team", DEVPI_INDEX="prod"))
        assert (found["user"], found["index"]) == ("team", "prod")

    def test_it_holds_no_password(self, tmp_path: Path) -> None:
        assert "hunter2" not in str(deployment.wish(settings_of(tmp_path, PYPI_PASSWORD="hunter2", ROOT_PASSWORD="hunter2")))


class TestChoose:
    def test_by_name(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path)
        assert isinstance(deployment.choose(World(), settings, "local"), native.Server)
        for env in ("dev", "stable"):
            found = deployment.choose(World(), settings, env)
            assert isinstance(found, stack.Stack)
            assert found.env == env

    @pytest.mark.parametrize("env", ["", None])
    def test_by_the_setting_where_no_name_is_given(self, tmp_path: Path, env: str | None) -> None:
        assert deployment.choose(World(), settings_of(tmp_path), env).env == "dev"
        assert deployment.choose(World(), settings_of(tmp_path, PYPI_ENV="local"), env).env == "local"

    def test_an_unknown_name_lists_the_known(self, tmp_path: Path) -> None:
        with pytest.raises(BadInput) as caught:
            deployment.choose(World(), settings_of(tmp_path), "prod")
        assert "'prod' is not an environment." in told(caught)
        assert "known environments: dev, local, stable" in told(caught)


class TestSummary:
    def test_has_what_the_clients_need(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, DEVPI_PORT="4040")
        lines = [" ".join(line.split()) for line in deployment.summary(settings, "dev").splitlines()]
        index = "http://127.0.0.1:4040/pypi/stable"
        password = settings.secrets_home / "user_password"
        assert "web page http://127.0.0.1:4040" in lines
        assert f"install pip install --index-url {index}/+simple/ PACKAGE" in lines
        assert f"uv pip install --index-url {index}/+simple/ PACKAGE" in lines
        assert any(line.endswith(f"twine upload --repository-url {index}/ -u pypi dist/*") for line in lines)
        assert f"passwords {password} (pypi), {settings.secrets_home / 'root_password'} (root)" in lines
        assert lines[-1] == "Next: inv smoke --env dev"

    def test_has_the_address_that_clients_use(self, tmp_path: Path) -> None:
        text = deployment.summary(settings_of(tmp_path, OUTSIDE_URL="https://pypi.example/devpi/"), "dev")
        assert "--index-url https://pypi.example/devpi/pypi/stable/+simple/ " in text
        assert "127.0.0.1" not in text

    def test_has_https_where_there_is_a_certificate(self, tmp_path: Path) -> None:
        (tmp_path / "tls.crt").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n")
        (tmp_path / "tls.key").write_text("-----BEGIN PRIVATE KEY-----\nMIIE\n")
        pair = {"TLS_CERTIFICATE": str(tmp_path / "tls.crt"), "TLS_KEY": str(tmp_path / "tls.key")}
        text = deployment.summary(settings_of(tmp_path, **pair), "dev")
        assert "--index-url https://127.0.0.1:3141/pypi/stable/+simple/ " in text
        assert "http://" not in text

    def test_has_no_password(self, tmp_path: Path) -> None:
        assert "hunter2" not in deployment.summary(settings_of(tmp_path, PYPI_PASSWORD="hunter2"), "dev")


class TestConfusion:
    def test_a_wide_open_white_list_is_warned_of(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        deployment.warn_of_confusion(World(), settings_of(tmp_path, DEVPI_MIRROR_WHITELIST="*"))
        assert "dependency confusion" in capsys.readouterr().err

    @pytest.mark.parametrize("white_list", ["", "one,two"])
    def test_names_are_not(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], white_list: str) -> None:
        deployment.warn_of_confusion(World(), settings_of(tmp_path, DEVPI_MIRROR_WHITELIST=white_list))
        assert capsys.readouterr().err == ""


class TestAwaitHealth:
    def test_a_server_that_fell_is_told_at_once_with_its_last_words(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, DEVPI_PORT=str(free_port()))
        settings.devpi_home.mkdir()
        words = [f"line {number}" for number in range(30)] + ["out of memory"]
        (settings.devpi_home / "devpi.log").write_text("\n".join(words) + "\n")
        with pytest.raises(Failed) as caught:
            deployment.await_health(World(), native.Server(World(), settings), timeout=60)
        assert "the server did not stay up (stopped); the end of its log:\nline 11\n" in told(caught)
        assert "out of memory\n  Fix: `inv logs --env local`; undo what was changed, then `inv up --env local` again" in told(
            caught
        )

    def test_a_dry_run_waits_for_nothing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        world = World(dry=True)
        deployment.await_health(world, native.Server(world, settings_of(tmp_path)), timeout=60)
        assert capsys.readouterr().out == "would: wait for local to be healthy, 60 s at most\n"
