"""devpi-server with our plugin, which keeps its answers as files for the proxy; without DEVPI_PAGES, devpi-server as it is."""

import os
import sys
from pathlib import Path

from devpi_server.main import CommandRunner, _main


def main(arguments: list[str]) -> int:
    """Run devpi-server until it ends; its exit code."""
    with CommandRunner() as runner:
        if folder := os.environ.get("DEVPI_PAGES"):
            from plugin import Plugin

            limit = int(os.environ.get("DEVPI_PAGES_LIMIT", str(512 * 1024**2)))
            runner.pluginmanager.register(Plugin(Path(folder), limit))
        runner.return_code = _main(runner.pluginmanager, argv=["devpi-server", *arguments])
    code: int = runner.return_code or 0
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
