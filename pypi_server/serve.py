"""devpi-server with our plugins: a storage with a better memory, and, where DEVPI_PAGES names a folder, kept pages in it."""

import os
import sys
from pathlib import Path

import refill
from devpi_server.main import CommandRunner, _main
from storage import Backend


def main(arguments: list[str]) -> int:
    """Run devpi-server until it ends; its exit code."""
    refill.use()
    with CommandRunner() as runner:
        runner.pluginmanager.register(Backend())
        if folder := os.environ.get("DEVPI_PAGES"):
            from plugin import Plugin

            limit = int(os.environ.get("DEVPI_PAGES_LIMIT", str(512 * 1024**2)))
            runner.pluginmanager.register(Plugin(Path(folder), limit))
        runner.return_code = _main(runner.pluginmanager, argv=["devpi-server", *arguments])
    code: int = runner.return_code or 0
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
