"""Copy what our stack serves into a folder, so that the limit serves the same bytes at the same paths.

The job is ``{"pages": ["/pypi/bench/+simple/six/"], "files": true}``: pages as uv asks for them, compressed ones beside,
and with ``files`` all that they link, metadata included. The outcome is the number of bytes written.
"""

import gzip
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import requests
from job import ACCEPT, SERVER, Job, main, session

SITE = Path("/site")


def write(path: str, content: bytes) -> int:
    """Keep the bytes of one path."""
    target = SITE / unquote(path).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return len(content)


def page(client: requests.Session, path: str) -> tuple[requests.Response, int]:
    """One page, plain and compressed: as the stack compressed it, where it does."""
    answer = client.get(f"{SERVER}{path}", headers={"Accept": ACCEPT, "Accept-Encoding": "gzip"}, stream=True, timeout=120)
    answer.raise_for_status()
    sent = answer.raw.read(decode_content=False)
    is_small = answer.headers.get("Content-Encoding") == "gzip"
    plain = gzip.decompress(sent) if is_small else sent
    answer._content = plain  # the raw stream is used up
    return answer, write(f"{path}index.json", plain) + write(
        f"{path}index.json.gz", sent if is_small else gzip.compress(plain, 6)
    )


def copy(job: Job) -> int:
    """Copy the pages of the job and, if it says so, their files."""
    client = session()
    total = 0
    for path in job["pages"]:
        shown, size = page(client, path)
        total += size
        for file in shown.json()["files"] if job.get("files") else []:
            address = urljoin(shown.url, file["url"]).split("#")[0]
            wanted = [address] + ([f"{address}.metadata"] if file.get("core-metadata") else [])
            for one in wanted:
                answer = client.get(one, timeout=120)
                answer.raise_for_status()
                total += write(urlsplit(one).path, answer.content)
    return total


if __name__ == "__main__":
    main(copy)
