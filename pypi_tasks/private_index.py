"""An index of the running server, as whoever uploads to it sees it."""

import contextlib
import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pypi_tasks import simple_index, smoke
from pypi_tasks.check import in_bytes
from pypi_tasks.distribution import CHUNK, Distribution, Form, normalized
from pypi_tasks.errors import BadInput, Failed, NotReady
from pypi_tasks.settings import Settings

if TYPE_CHECKING:
    import requests

TIMEOUT = (10, 600)  # seconds; the server may be restarting meanwhile


class Index:
    """One index, over one connection. The password goes to the server once; what it gives for it stands for it then."""

    def __init__(self, settings: Settings, name: str = "") -> None:
        import requests

        self.settings, self.name = settings, name or settings.index
        self.server = smoke.address(settings).removesuffix(f"/{settings.index}")
        self.url = f"{self.server}/{self.name}"
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.verify = smoke.certificates(settings)
        self.limit = in_bytes(settings.upload_limit)
        self.urls: dict[str, str] = {}  # of the files that its pages list

    def __enter__(self) -> "Index":
        self.log_in()
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def ask(self, method: str, url: str, **options: Any) -> "requests.Response":
        """An answer; Failed where the server gives none."""
        import requests

        try:
            return self.session.request(method, url, timeout=TIMEOUT, **options)
        except requests.RequestException as error:
            fix = "inv up; inv status; then the same command again, which goes on from here"
            raise Failed(f"{self.server} {simple_index.unanswered(error)}.", fix) from None

    def log_in(self) -> None:
        """Have what stands for the password."""
        stored = self.settings.secrets_home / "user_password"
        if not stored.exists():
            raise NotReady(f"there is no password yet in {stored}.", fix="inv up")
        wish = {"user": self.settings.devpi_user, "password": stored.read_text(encoding="utf-8").strip()}
        response = self.ask("POST", f"{self.server}/+login", json=wish)
        if response.status_code == 429:
            raise NotReady("too many logins at once.", fix="wait a moment, then try again")
        if response.status_code != 200:
            fix = "the stored password is not the server's: PYPI_PASSWORD=... inv up"
            raise NotReady(f"the login of {self.settings.devpi_user} answered {response.status_code} {response.reason}.", fix)
        self.session.auth = (self.settings.devpi_user, response.json()["result"]["password"])

    def projects(self) -> set[str]:
        """The projects that have files of its own, normalized names."""
        response = self.ask("GET", self.url, headers={"Accept": "application/json"})
        if response.status_code != 200:
            raise BadInput(
                f"{self.name} answered {response.status_code}: it is no index of this server.", fix="inv up makes DEVPI_INDEX"
            )
        found = response.json()["result"]
        if found["type"] == "mirror":
            raise BadInput(f"{self.name} is a mirror: nobody can upload to it.", fix="--index USER/INDEX of your own")
        return {normalized(name) for name in found["projects"]}

    def files(self, project: str) -> dict[str, str]:
        """The files of its own of a project that it has, and their sha256, as a client would read them."""
        response = self.ask("GET", f"{self.url}/+simple/{project}/", headers={"Accept": simple_index.JSON})
        if response.status_code == 404:
            return {}
        if response.status_code != 200:
            raise Failed(f"the page of {project} answered {response.status_code} {response.reason}.", fix="inv logs")
        own = f"{urlsplit(self.url).path}/"
        found = [link for link in simple_index.links(response) if link.is_below(own)]
        self.urls |= {link.file: link.url for link in found}
        return {link.file: link.digests.get("sha256", "") for link in found}

    def is_whole(self, file: str, sha256: str) -> bool:
        """Whether a file that a page lists is there, with the content that it should have."""
        import requests

        digest = hashlib.sha256()
        with contextlib.suppress(requests.RequestException), self.ask("GET", self.urls[file], stream=True) as response:
            for text in response.iter_content(CHUNK) if response.status_code == 200 else ():
                digest.update(text)
        return digest.hexdigest() == sha256

    def upload(self, distribution: Distribution) -> str:
        """Upload a file; what the server has against it, empty for nothing."""
        form = Form(distribution.fields, distribution.path)
        if len(form) > self.limit:
            return f"larger than UPLOAD_LIMIT={self.settings.upload_limit}"
        for _ in range(2):
            response = self.ask("POST", f"{self.url}/", data=form, headers={"Content-Type": form.type})
            if response.status_code != 401:
                break
            self.log_in()  # what stands for a password is good for some hours only
        if response.status_code == 403:
            raise Failed(f"{self.settings.devpi_user} may not upload to {self.name}.", fix="see the index's acl_upload")
        return "" if response.status_code == 200 else f"the server answered {response.status_code}: {response.reason}"
