"""The project's tasks, by purpose. What they do is in pypi_tasks/; settings come from .env and the environment."""

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

from pypi_tasks.command_line import accept_words
from pypi_tasks.program import heed_ends
from pypi_tasks.start import images_named, number, overview, server, settings, world

accept_words()
heed_ends()

IMAGES = {"images": "an image, a folder with a Dockerfile; all for none"}
ENV = {"env": "dev, stable or local; PYPI_ENV for none"}


@task(auto_shortflags=False, iterable=["images"], help=IMAGES)
def lint(c: Context, images: list[str]) -> None:
    """Check every Dockerfile and every rendered Compose file."""
    from pypi_tasks import compose, image

    image.lint(world(c), images_named(images))
    compose.lint(world(c), settings())


NO_CACHE = {"no_cache": "build every layer anew", "pull": "look for a newer base image first"}


@task(auto_shortflags=False, iterable=["images"], help={**IMAGES, **NO_CACHE})
def build(c: Context, images: list[str], no_cache: bool = False, pull: bool = False) -> None:
    """Lint, then build images with BuildKit."""
    from pypi_tasks import engine, image

    wanted = images_named(images)
    lint(c, images)
    engine.require(world(c), "engine", "buildx")
    image.build(world(c), settings(), wanted, no_cache, pull)


@task(auto_shortflags=False, iterable=["images"], help=IMAGES)
def build_cached(c: Context, images: list[str]) -> None:
    """Lint, then build images from cached layers."""
    build(c, images)


@task(auto_shortflags=False, iterable=["images"], help=IMAGES)
def tag(c: Context, images: list[str]) -> None:
    """Tag images for REGISTRY; builds what is missing or outdated."""
    from pypi_tasks import engine, image

    wanted = images_named(images)
    engine.require(world(c), "engine", "buildx")
    image.tag(world(c), settings(), wanted)


@task(auto_shortflags=False, iterable=["images"], help=IMAGES)
def push(c: Context, images: list[str]) -> None:
    """Lint, build if needed, tag, push; prints the digests."""
    from pypi_tasks import engine, image, registry

    wanted = images_named(images)
    image.require_registry(settings())
    lint(c, images)
    engine.require(world(c), "engine", "buildx")
    registry.push(world(c), image.tag(world(c), settings(), wanted))


@task(auto_shortflags=False, help={**ENV, "timeout": "seconds to wait for health"})
def up(c: Context, env: str = "", timeout: str = "120") -> None:
    """Bring the index up; prints what clients need."""
    from pypi_tasks import deployment

    deployment.up(world(c), settings(), server(c, env), number("--timeout", timeout))


@task(auto_shortflags=False, help=ENV)
def down(c: Context, env: str = "") -> None:
    """Take the server down; packages, images and secrets stay."""
    from pypi_tasks import deployment

    deployment.down(world(c), server(c, env))


@task(auto_shortflags=False, help={**ENV, "to": "a tag of the registry in place of TAG"})
def upgrade(c: Context, env: str = "", to: str = "") -> None:
    """Replace the images by newer ones while clients wait; goes back where that fails."""
    from pypi_tasks import upgrade

    upgrade.run(world(c), settings(), server(c, env), to)


@task(auto_shortflags=False, help=ENV)
def rollback(c: Context, env: str = "") -> None:
    """Undo the last upgrade."""
    from pypi_tasks import upgrade

    upgrade.rollback(world(c), settings(), server(c, env))


@task(auto_shortflags=False)
def status(c: Context) -> None:
    """Show every environment and its health."""
    from pypi_tasks import report

    report.status(world(c), settings())


@task(help={**ENV, "follow": "go on until Ctrl-C", "lines": "how many to begin with"})
def logs(c: Context, follow: bool = False, env: str = "", lines: str = "100") -> None:
    """Show the server's log."""
    server(c, env).logs(follow, int(number("--lines", lines)))


@task(auto_shortflags=False, help=ENV)
def smoke(c: Context, env: str = "") -> None:
    """Upload a tiny wheel, install it with pip, remove it."""
    from pypi_tasks import deployment, smoke

    deployment.require_up(world(c), server(c, env))
    smoke.run(world(c), settings())


@task(auto_shortflags=False)
def certificate(c: Context) -> None:
    """Make a self-signed pair for TLS, for trying out."""
    from pypi_tasks import certificate

    certificate.make(world(c), settings())


@task(auto_shortflags=False, help=ENV)
def purge(c: Context, env: str = "") -> None:
    """Empty the proxy's cache of pages; they are made anew as they are asked for."""
    from pypi_tasks import deployment

    deployment.require_up(world(c), server(c, env))
    server(c, env).purge()


ROTATE = {"only": "root, user or server; both passwords for none", "yes": "do not ask before all logins end"}


@task(auto_shortflags=False, help={**ENV, **ROTATE})
def rotate(c: Context, env: str = "", only: str = "", yes: bool = False) -> None:
    """Give root and DEVPI_USER new passwords; or the server a new secret."""
    from pypi_tasks import rotate

    rotate.rotate(world(c), settings(), server(c, env), only, yes)


BACKUP = {
    "to": "another folder than BACKUP_HOME, or REMOTE:PATH as rclone knows it",
    "full": "read all again, not only what is new",
    "with_secrets": "with SECRETS_HOME, locked by a passphrase",
    "prune": "remove old ones",
}


@task(auto_shortflags=False, help={**ENV, **BACKUP})
def backup(c: Context, env: str = "", to: str = "", full: bool = False, with_secrets: bool = False, prune: bool = False) -> None:
    """Make a snapshot of the running server; or remove old ones."""
    from pypi_tasks import backup, deployment

    backup.refuse_both(to, prune, full, with_secrets)
    at = backup.redirected(settings(), to)
    place = deployment.choose(world(c), at, env)
    backup.prune(world(c), at, place) if prune else backup.run(world(c), at, place, full, with_secrets, to)


@task(auto_shortflags=False, help=ENV)
def backups(c: Context, env: str = "") -> None:
    """Show the snapshots."""
    from pypi_tasks import backup

    backup.show(world(c), settings(), server(c, env))


SNAPSHOT = {"snapshot": "its name; the newest verified one for none"}


RESTORE = {"yes": "do not ask", "without_damaged": "leave out the files that are damaged in the snapshot"}


@task(auto_shortflags=False, help={**SNAPSHOT, **ENV, **RESTORE})
def restore(c: Context, snapshot: str = "", env: str = "", yes: bool = False, without_damaged: bool = False) -> None:
    """Put a snapshot in place of the data, which is kept."""
    from pypi_tasks import restore

    restore.run(world(c), settings(), server(c, env), snapshot, yes, without_damaged)


@task(auto_shortflags=False, help={**SNAPSHOT, **ENV, "from": "where it is: REMOTE:PATH as rclone knows it"})
def fetch(c: Context, snapshot: str = "", from_: str = "", env: str = "") -> None:
    """Copy a snapshot from elsewhere into BACKUP_HOME."""
    from pypi_tasks import offsite

    offsite.fetch(world(c), settings(), from_, snapshot, server(c, env).owner)


@task(auto_shortflags=False, help={**SNAPSHOT, **ENV})
def unlock(c: Context, snapshot: str = "", env: str = "") -> None:
    """Write a snapshot's secrets into SECRETS_HOME; what is there is put aside."""
    from pypi_tasks import vault

    vault.open(world(c), settings(), server(c, env), snapshot)


@task(auto_shortflags=False, help={**SNAPSHOT, **ENV})
def drill(c: Context, snapshot: str = "", env: str = "") -> None:
    """Restore a snapshot into a throw-away stack and compare it, file by file."""
    from pypi_tasks import drill

    drill.run(world(c), settings(), server(c, env), snapshot)


VERIFY = {"repair": "put sound copies in the place of damaged files", "live": "the live data alone", "snapshots": "them alone"}


@task(auto_shortflags=False, help={**ENV, **VERIFY})
def verify(c: Context, env: str = "", repair: bool = False, live: bool = False, snapshots: bool = False) -> None:
    """Look for damage in the data and the snapshots."""
    from pypi_tasks import verify

    verify.run(world(c), settings(), server(c, env), repair, live, snapshots)


ADOPT = {
    "source": "a devpi server directory, a folder of wheels and sdists, or http(s)://.../simple/",
    "index": "USER/INDEX to upload to, where not the private index",
    "projects": "only these of a URL, comma-separated",
    "in_place": "move the devpi server directory, where it is copied otherwise",
}


@task(auto_shortflags=False, help={**ADOPT, **ENV})
def adopt(c: Context, source: str = "", env: str = "", index: str = "", projects: str = "", in_place: bool = False) -> None:
    """Take over another server: devpi's data, a folder of packages, or an index by its URL."""
    from pypi_tasks import adopt

    adopt.adopt(world(c), settings(), server(c, env), source, index, projects, in_place)


@task(auto_shortflags=False, help={**ENV, "yes": "do not ask", "data": "remove the packages too; asks for the index's name"})
def gc(c: Context, env: str = "", yes: bool = False, data: bool = False) -> None:
    """Remove containers, networks, images, cache; packages stay."""
    from pypi_tasks import garbage

    garbage.collect(world(c), settings(), server(c, env), yes, data)


@task(auto_shortflags=False)
def config(c: Context) -> None:
    """Show the settings and where each came from."""
    from pypi_tasks import report

    report.config(settings())


@task(auto_shortflags=False, help=ENV)
def render(c: Context, env: str = "") -> None:
    """Print the Compose file of an environment."""
    from pypi_tasks import compose

    world(c).say(compose.render(settings(), compose.variant(env or settings().pypi_env)))


@task(auto_shortflags=False)
def doctor(c: Context) -> None:
    """Check engine, versions, port, disk, permissions and settings."""
    from pypi_tasks import doctor

    doctor.report(world(c), settings())


TEST = {
    "options": "for pytest, such as '-k smoke -x'",
    "chaos": "put faults onto a stack of its own instead; takes hours",
    "only": "a fault; repeat for more",
    "trials": "of each fault, at most",
    "seed": "of the random choices",
    "out": "where the JSON goes",
}


@task(auto_shortflags=False, iterable=["only"], help=TEST)
def test(
    c: Context, only: list[str], options: str = "", chaos: bool = False, trials: str = "", seed: str = "", out: str = ""
) -> None:
    """Check style and types, then run the tests."""
    from pypi_tasks import project

    if chaos or only or trials or seed or out:
        project.chaos(world(c), chaos, only, trials, seed, out)
    else:
        project.test(world(c), options)


BENCH = {"quick": "fewer and shorter rounds", "only": "a row; repeat for more", "out": "where the JSON goes"}


@task(auto_shortflags=False, iterable=["only"], help=BENCH)
def bench(c: Context, only: list[str], quick: bool = False, out: str = "") -> None:
    """Measure this stack beside others; tables, JSON and plots."""
    from bench import suite

    suite.run(world(c), settings(), quick, only, out)


@task(auto_shortflags=False, help={"upgrade": "take the newest versions"})
def lock(c: Context, upgrade: bool = False) -> None:
    """Make the lock files anew."""
    from pypi_tasks import project

    project.lock(world(c), upgrade)


@task(auto_shortflags=False, name="help", default=True, iterable=["tasks"], help={"tasks": "only these"})
def help_(c: Context, tasks: list[str] | None = None) -> None:
    """Show the tasks by purpose."""
    world(c).say(overview(GROUPS, tasks or []))


GROUPS = {
    "images": [lint, build, build_cached, tag, push],
    "stack": [up, down, upgrade, rollback, status, logs, smoke, purge, certificate, rotate],
    "data": [backup, backups, fetch, unlock, restore, drill, verify, adopt, gc],
    "project": [config, render, doctor, test, bench, lock, help_],
}
ns = Collection(*(one for group in GROUPS.values() for one in group))
