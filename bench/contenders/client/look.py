"""Look at what a server has, before load is put on it.

The job is ``{"path": "/pypi/stable/+simple/six/", "file": "six-1.17.0-py2.py3-none-any.whl", "page": false,
"wait": 60}``. Without ``file`` the path itself is asked for, as a page where ``page`` says so, with it the file that the
page there links. Asked again for ``wait`` seconds until
the answer is 200 and comes from the server itself, which a proxy that has yet to fetch it may not give. The outcome is
``{"path": ..., "bytes": bytes of the body as sent, "encoding": ..., "type": ...}``.
"""

import re
import time
from urllib.parse import urljoin, urlsplit

import requests
from job import ACCEPT, SERVER, Job, main, session


def links(page: requests.Response) -> list[str]:
    """The addresses of the files on a page, JSON or HTML."""
    if "json" in page.headers.get("Content-Type", ""):
        found = [file["url"] for file in page.json()["files"]]
    else:
        found = re.findall(r'href="([^"]+)"', page.text)
    return [urljoin(page.url, one).split("#")[0] for one in found]


def path_of(client: requests.Session, job: Job) -> str:
    """The path of the file that the page links."""
    page = client.get(f"{SERVER}{job['path']}", headers={"Accept": ACCEPT}, timeout=120)
    page.raise_for_status()
    name = job["file"].replace("+", "%2B")
    for link in links(page):
        if link.rpartition("/")[2] in (job["file"], name):
            return urlsplit(link).path
    raise LookupError(f"{job['path']} does not link {job['file']}")


def look(job: Job) -> Job:
    """The first answer that is the server's own."""
    client = session()
    deadline = time.monotonic() + job.get("wait", 0)
    while True:
        try:
            path = path_of(client, job) if job.get("file") else job["path"]
            accept = ACCEPT if job.get("page") else "*/*"
            answer = client.get(f"{SERVER}{path}", headers={"Accept": accept}, allow_redirects=False, stream=True, timeout=120)
            body = answer.raw.read(decode_content=False)
            if answer.status_code == 200:
                return {
                    "path": path, "bytes": len(body), "encoding": answer.headers.get("Content-Encoding", ""),
                    "type": answer.headers.get("Content-Type", ""),
                }  # fmt: skip
            problem = f"{path} answered {answer.status_code}"
        except requests.RequestException as error:
            problem = str(error)
        if time.monotonic() > deadline:
            raise ValueError(problem)
        time.sleep(0.2)


if __name__ == "__main__":
    main(look)
