"""An engine that is restarted: one of its own, in its own network, so that nothing else on the machine goes down with it."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pypi_tasks.world import poll
from tests.chaos.ground import KINDS, Run

NEW_NETWORK = 0x40000000  # CLONE_NEWNET, unshare(2)
PATIENCE = 60.0  # seconds in which a client that is refused asks again
C_LIBRARY = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    """Turn a C function's failure into an exception."""
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextlib.contextmanager
def network_of_its_own() -> Iterator[None]:
    """This thread, and what it starts, has a network with nothing but a loopback device."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        check(C_LIBRARY.unshare(NEW_NETWORK))
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True, capture_output=True)
            yield
        finally:
            check(C_LIBRARY.setns(before, NEW_NETWORK))
    finally:
        os.close(before)


class Engine:
    """A Docker engine below a folder, that the docker command talks to while it is started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"unix://{folder}/engine.sock"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        argv = ["dockerd", "--host", self.address, "--pidfile", f"{self.folder}/pid"]
        argv += ["--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        assert poll(self.answers, 60), (self.folder / "log").read_text()[-1000:]

    def answers(self) -> bool:
        return subprocess.run(["docker", "--host", self.address, "info"], capture_output=True).returncode == 0

    def stop(self, how: signal.Signals) -> None:
        """End it, and wait for that."""
        self.process.send_signal(how)
        self.process.wait(120)

    def take(self, images: list[str]) -> None:
        """Have images of the other engine, which is the one that the docker command talks to now."""
        saved = self.folder / "images.tar"
        subprocess.run(["docker", "save", "--output", str(saved), *images], check=True, capture_output=True)
        load = ["docker", "--host", self.address, "load", "--input", str(saved)]
        subprocess.run(load, check=True, capture_output=True)
        saved.unlink()


@contextlib.contextmanager
def elsewhere(run: Run) -> Iterator[Engine]:
    """Move the stack to an engine of its own, with its data, secrets and images."""
    shown = run.stack.run("docker", "images", "--filter", f"label=pypi-tasks.project={run.stack.project}",
                          "--format", "{{.Repository}}:{{.Tag}}").stdout  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="pypi-engine-"))
    engine = Engine(folder)
    run.stack.inv("down", "--env", "dev")
    with network_of_its_own():
        engine.start()
        try:
            engine.take([image for image in shown.split() if "<none>" not in image])
            os.environ["DOCKER_HOST"] = engine.address
            run.stack.inv("up", "--env", "dev", timeout=600)
            yield engine
            run.stack.inv("down", "--env", "dev")
        finally:
            os.environ.pop("DOCKER_HOST", None)
            engine.stop(signal.SIGTERM)  # which ends its containers
            while subprocess.run(["umount", "--recursive", "--lazy", f"{folder}/data"], capture_output=True).returncode == 0:
                pass  # an engine that is killed leaves its mounts, one upon the other
            shutil.rmtree(folder)


def restarts(run: Run) -> None:
    """End the engine, every other time by SIGKILL, and start it again, while all kinds of clients are at work."""
    with elsewhere(run) as engine, run.loaded(retries=True) as load:
        load.patience = PATIENCE

        def trial() -> str:
            assert load.goes_on(KINDS), "clients do not get on"
            run.wait(1)
            how = signal.SIGKILL if run.seen.trials % 2 == 0 else signal.SIGTERM
            engine.stop(how)
            engine.start()
            assert load.goes_on(KINDS), "clients do not get on afterwards"
            assert not load.failed, load.failed[:3]
            return f"{how.name}: all containers came up again"

        run.each(trial)
    run.check()
