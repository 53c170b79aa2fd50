"""What is changed while clients go on: images, passwords; and an upstream that fails."""

import hashlib
import http.client
import json
import shutil
import time
from collections.abc import Callable

from pypi_tasks.world import poll
from tests.chaos.ground import KINDS, Run
from tests.packages import pip_install
from tests.raw import PIP, Answer, ask, container, make_mirror, token
from tests.upstream import Upstream, upstream

FOLDERS = ("pypi_server", "pypi_proxy")
REQUESTS = 500  # for each trial of an upgrade: 5,000 of ten
SOON = 4.0  # seconds in which a page that is kept must come; devpi itself gives upstream five
SLOW = 30.0  # seconds


def images(run: Run) -> list[object]:
    """The images that run."""
    from tests.conftest import inspect

    return [inspect(container(run.stack, service))["Image"] for service in ("devpi", "proxy")]


def upgrades(run: Run) -> None:
    """New images, the old ones again, and broken ones, under the load of all clients."""
    kept = run.folder()
    for name in FOLDERS:
        shutil.copytree(run.stack.root / name, kept / name)

    def as_before() -> None:
        for name in FOLDERS:
            shutil.rmtree(run.stack.root / name)
            shutil.copytree(kept / name, run.stack.root / name)

    def add(file: str, text: str, before: str = "") -> None:
        path = run.stack.root / file
        found = path.read_text()
        path.write_text(found.replace(before, text + before, 1) if before else found + text)

    with run.loaded(retries=True, twine=True) as load:

        def trial() -> str:
            number, before = next(run.ground.numbers), images(run)
            add("pypi_server/entrypoint.py", f"# changed {number}\n")
            add("pypi_proxy/nginx.conf", f"# changed {number}\n")
            run.stack.inv("upgrade", "--env", "dev", timeout=400)
            after = images(run)
            assert all(old != new for old, new in zip(before, after, strict=True)), "the images are the old ones"
            assert load.goes_on(KINDS), "clients do not get on after the upgrade"
            run.stack.inv("rollback", "--env", "dev", timeout=400)
            assert images(run) == before, "the images are not the old ones"
            as_before()
            add("pypi_server/serve.py", f'sys.exit("broken {number}")\n', before="from devpi_server.main")
            try:
                refusal = run.stack.refused("upgrade", "--env", "dev")
            finally:
                as_before()
            assert f"broken {number}" in refusal and images(run) == before, refusal
            assert load.goes_on(KINDS), "clients do not get on after the rollback"
            return "upgraded, rolled back, a broken image refused"

        run.each(trial)
        poll(lambda: load.done.total() >= REQUESTS * run.seen.trials, 120)
    if (made := load.done.total()) < REQUESTS * run.seen.trials:
        run.seen.problems.append(f"{made:,} requests, expected {REQUESTS * run.seen.trials:,} at least")
    run.check()


def url_of(run: Run, mirror: str, name: str) -> str:
    """The address of the first file on a page."""
    link = ask(run.stack, f"/{mirror}/+simple/{name}/", PIP).files[0]
    return f"/{mirror}/{link['url'].removeprefix('../../')}"


def whole(run: Run, path: str) -> Answer | None:
    """The answer with a file; None where what came is not all that was announced, which every client notices."""
    try:
        return ask(run.stack, path, timeout=120)
    except (OSError, http.client.HTTPException):
        return None


def wrong(run: Run, mirror: str, source: Upstream) -> list[str]:
    """The files of a mirror on disk that are not upstream's."""
    sound = {hashlib.sha256(content).hexdigest() for content in source.contents.values()}
    files = [path for path in (run.stack.home / "server" / "+files" / mirror).rglob("*") if path.is_file()]
    finished = [path for path in files if not path.name.endswith("-tmp")]
    return [path.name for path in finished if hashlib.sha256(path.read_bytes()).hexdigest() not in sound]


def upstreams(break_it: Callable[[Upstream], None]) -> Callable[[Run], None]:
    """A fault of an upstream: what was seen once is installed, pages come at once, no wrong bytes are kept."""

    def fault(run: Run) -> None:
        with upstream(run.stack) as source:

            def trial() -> str:
                number = next(run.ground.numbers)
                seen, unseen = f"seen{number}", f"unseen{number}"
                for name in (seen, unseen):
                    source.add(name, "1.0")
                mirror = make_mirror(run.stack, f"mirror{number}", source.url, mirror_cache_expiry=1)
                paths = {name: url_of(run, mirror, name) for name in (seen, unseen)}
                content = source.contents[f"/files/{source.projects[unseen][0]['filename']}"]
                assert ask(run.stack, paths[seen]).status == 200
                expired = time.monotonic() + 1.5
                assert poll(lambda: time.monotonic() > expired, 5)
                break_it(source)
                try:
                    for _ in range(5):
                        started = time.monotonic()
                        page = ask(run.stack, f"/{mirror}/+simple/{seen}/", PIP)
                        took = time.monotonic() - started
                        assert page.status == 200 and len(page.names) == 1, f"the page is answered with {page.status}"
                        assert took < SOON, f"the page took {took:.1f} s"
                    pip_install(run.stack, run.folder(), f"{seen}==1.0", "--retries", "0", index=f"{run.stack.url}/{mirror}")
                    answer = whole(run, paths[unseen])
                    given = answer is not None and answer.status == 200
                    assert not given or (answer and answer.body == content), "wrong bytes are served"
                    run.seen.requests += 7
                finally:
                    source.status, source.delay, source.refuses, source.cuts = 200, 0.0, False, False
                assert poll(lambda: (late := whole(run, paths[unseen])) is not None and late.body == content, 90, 1), (
                    "the file is not served though upstream is sound again"
                )
                assert not (names := wrong(run, mirror, source)), f"wrong bytes are kept: {names}"
                return f"what was seen is served, a new file: {answer.status if answer else 'cut short'}"

            run.each(trial)
        run.check()

    return fault


def refuse(source: Upstream) -> None:
    """Nobody is there: connections are closed as soon as they are made."""
    source.refuses = True


def slow_down(source: Upstream) -> None:
    """Each answer takes its time."""
    source.delay = SLOW


def fail(source: Upstream) -> None:
    """Every answer is an error."""
    source.status = 500


def cut(source: Upstream) -> None:
    """Every answer breaks off in the middle."""
    source.cuts = True


def rotation(run: Run) -> None:
    """New passwords while clients go on, whose logins stay; a new server secret, which ends all logins and no reader's work."""
    from tests.chaos.kept import offer

    with run.loaded() as load:

        def trial() -> str:
            assert load.goes_on(KINDS), "clients do not get on"
            old = run.stack.password
            run.stack.inv("rotate")
            assert run.stack.password != old, "the password is the old one"
            assert login(run, old) == 401, "the old password is accepted"
            assert login(run, run.stack.password) == 200, "the new password is refused"
            return "passwords: new"

        run.each(trial)
    with run.reading() as load:

        def secret() -> str:
            assert load.goes_on(("pages", "devpi")), "readers do not get on"
            old = token(run.stack.port, "pypi", run.stack.password)
            assert offer(run.stack, "logged-in", f"1.{next(run.ground.numbers)}", b"before")[0] == 200
            run.stack.inv("rotate", "--only", "server", "--yes")
            status = offer(run.stack, "logged-in", f"1.{next(run.ground.numbers)}", b"after")[0]
            assert status in (401, 403), f"a login from before is answered with {status}"
            token.cache_clear()
            assert token(run.stack.port, "pypi", run.stack.password) != old, "the login is the old one"
            assert load.goes_on(("pages", "devpi")), "readers do not get on afterwards"
            return "server secret: new"

        run.each(secret)
    run.check()


def login(run: Run, password: str) -> int:
    """The status with which a login is answered."""
    wish = json.dumps({"user": "pypi", "password": password})

    found = 429

    def answered() -> bool:
        nonlocal found
        found = ask(run.stack, "/+login", {"Content-Type": "application/json"}, "POST", wish, timeout=120).status
        return found != 429

    poll(answered, 20, 1)  # logins are limited
    return found
