"""What a setting may be: each check makes the value of its text, or raises ValueError("what is expected")."""

import ipaddress
import re
from collections.abc import Callable


def matching(pattern: str, expected: str) -> Callable[[str], str]:
    """A check that the whole text matches ``pattern``."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(expected)
        return text

    return check


def number(low: int, high: int, expected: str) -> Callable[[str], int]:
    """A check for a whole number between ``low`` and ``high``."""

    def check(text: str) -> int:
        if not re.fullmatch(r"\d{1,10}", text) or not low <= int(text) <= high:
            raise ValueError(f"{expected}, {low} to {high}")
        return int(text)

    return check


def yes_or_no(text: str) -> bool:
    """true or false, as devpi and Compose spell them, and the usual others."""
    answer = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}
    if text.lower() not in answer:
        raise ValueError("true or false")
    return answer[text.lower()]


def words(pattern: str, expected: str) -> Callable[[str], tuple[str, ...]]:
    """A check for a list, separated by commas or blanks; may be empty."""

    def check(text: str) -> tuple[str, ...]:
        found = tuple(re.split(r"[,\s]+", text.strip(", "))) if text.strip(", ") else ()
        if not all(re.fullmatch(pattern, word) for word in found):
            raise ValueError(expected)
        return found

    return check


def user_id(own: Callable[[], int]) -> Callable[[str], int]:
    """A check for a uid or gid; empty means whoever runs this, and 1000 for root, as whom no server runs."""
    checked = number(1, 2**31 - 1, "a number of a user or group other than root")
    return lambda text: checked(text) if text else own() or 1000


def ip_address(text: str) -> str:
    """An address that this host may have."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError("an IP address of this host, or 0.0.0.0 for all of them") from None


def in_bytes(text: str) -> int:
    """The bytes of a size as Docker and nginx write it: a number and k, m or g."""
    exponent = " kmg".index(text[-1])
    return int(int(text[:-1]) * 1024**exponent)


def size(least: str) -> Callable[[str], str]:
    """A check for a size of at least ``least``."""

    def check(text: str) -> str:
        if not re.fullmatch(r"\d{1,9}[kmg]", text) or in_bytes(text) < in_bytes(least):
            raise ValueError(f"a size of {least} or more, such as 512m or 1g")
        return text

    return check


# What is less for devpi ends in a restart loop without a word.
memory = size("256m")

HOST = r"([A-Za-z0-9.-]+|\[[0-9a-f:]+\])(:\d{1,5})?"
registry_name = matching(
    rf"({HOST}(/[a-z0-9][a-z0-9._-]*)*)?",
    "host[:port][/path], the path in lower case, without http:// and without a slash at the end",
)
image_tag_or_none = matching(r"([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|sha256:[0-9a-f]{64})?", "a tag, or a digest sha256:...")
image_tag = matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|sha256:[0-9a-f]{64}", "a tag, or a digest sha256:...")
image_name = matching(r"[A-Za-z0-9][^\s]*", "an image, by tag or digest")
project_name = matching(r"[a-z0-9][a-z0-9_-]*", "lower-case letters, digits, - and _")
environment = matching(r"[a-z0-9][a-z0-9-]*", "the name of an environment")
port = number(1, 65535, "a port number")
devpi_name = matching(r"[A-Za-z0-9_][A-Za-z0-9._-]*", "letters, digits, . _ and -, not a . first")
devpi_owner = matching(r"(?!root$)[A-Za-z0-9_][A-Za-z0-9._-]*", "a name of letters, digits, . _ and -, other than root")
index_list = words(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", "indexes as user/index, comma-separated")
schedule = words(r"([01]\d|2[0-3]):[0-5]\d|[1-9]\d{0,3}[mh]", "times of day such as 02:30,14:30, or 6h, or 30m")
project_list = words(r"\*|[A-Za-z0-9._-]+", "names of projects, comma-separated, or *")
old_paths = matching(r"(pypiserver)?", "pypiserver, or nothing")
url = matching(r"(https?://[^\s/?#]+(/[^\s?#]*)?)?", "http(s)://host[:port][/path]")
