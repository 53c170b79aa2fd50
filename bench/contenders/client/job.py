"""What the scripts of this image share: a job comes as JSON on standard input, its outcome leaves as JSON."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

SERVER = "http://127.0.0.1:3141"
PASSWORD = Path("/run/secrets/user_password")
# What uv and pip want of a page.
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
Job = dict[str, Any]


def session() -> requests.Session:
    """A session that asks the server itself, never a proxy."""
    made = requests.Session()
    made.trust_env = False
    made.headers["User-Agent"] = "pypi-bench"
    return made


def main(work: Callable[[Job], Any]) -> None:
    """Do the job on standard input. What the server refused is told on standard error, without a traceback."""
    try:
        outcome = work(json.load(sys.stdin))
    except (requests.RequestException, LookupError, ValueError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(json.dumps(outcome))
