"""Who is compared: a table. Each runs in containers, listens on port 3141 there, and is asked in its own network."""

from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "contenders"
PORT = 3141


@dataclass(frozen=True)
class Contender:
    """One server, and the paths under which it has things; an empty path means that it cannot do that.

    ``private`` has the pages of uploaded projects, ``mirror`` those of PyPI, ``wheels`` those of the real wheels;
    ``upload`` and ``upload_wheels`` are where they go; ``alive`` answers 200 once the server is there.
    """

    name: str
    title: str
    private: str = ""
    mirror: str = ""
    wheels: str = ""
    upload: str = ""
    upload_wheels: str = ""
    alive: str = "/"
    login: bool = False


def devpi(name: str, title: str, is_server: bool = True) -> Contender:
    """One with devpi's paths.

    The real wheels are in an index without bases: a private name would hide PyPI's, and with it the pages of the mirror.
    """
    pages = "/pypi/stable/+simple/"
    made = Contender(name, title, private=pages, mirror=pages, wheels="/pypi/bench/+simple/")
    if not is_server:
        return made
    return replace(made, upload="/pypi/stable/", upload_wheels="/pypi/bench/", alive="/+api", login=True)


OURS = devpi("ours", "ours")
BARE = devpi("bare", "bare devpi")
PYPISERVER = Contender("pypiserver", "pypiserver", private="/simple/", wheels="/simple/", upload="/", upload_wheels="/")
PROXPI = Contender("proxpi", "proxpi", mirror="/index/", wheels="/index/", alive="/health")
LIMIT = devpi("limit", "limit", is_server=False)
ALL = (OURS, BARE, PYPISERVER, PROXPI, LIMIT)
