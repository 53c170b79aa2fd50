"""Images: every folder with a Dockerfile is one. What to build, under which names, and whether it is up to date."""

import datetime
import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pypi_tasks import revision
from pypi_tasks.errors import BadInput, Failed
from pypi_tasks.revision import Revision
from pypi_tasks.settings import ROOT, Settings
from pypi_tasks.world import World, tool

CONTEXT_LABEL = "pypi-tasks.context"
PROJECT_LABEL = "pypi-tasks.project"
ENV_LABEL = "pypi-tasks.env"
REVISION_LABEL = "org.opencontainers.image.revision"
VERSION_LABEL = "org.opencontainers.image.version"


@dataclass(frozen=True)
class Image:
    """One image: its name and the folder that is its build context."""

    name: str
    folder: Path

    def local(self, project: str) -> str:
        """The name by which a project knows it on this engine, where ``IMAGE:latest`` is whoever built last."""
        return f"{self.name}:{project}"

    def published(self, registry: str, tag: str) -> str:
        """The name that it has in a registry, by tag or by digest."""
        return f"{registry}/{self.name}{'@' if tag.startswith('sha256:') else ':'}{tag}"


def known(root: Path = ROOT) -> list[Image]:
    """All images of the project, by name."""
    return [Image(file.parent.name, file.parent) for file in sorted(root.glob("[!.]*/Dockerfile"))]


def select(names: Iterable[str], root: Path = ROOT) -> list[Image]:
    """The named images, all for no name; BadInput lists the known ones."""
    images = {image.name: image for image in known(root)}
    if not images:
        raise BadInput(f"no folder in {root} has a Dockerfile.")
    wanted = list(dict.fromkeys(name.strip("/") for name in names))
    for name in wanted:
        if name not in images:
            near = difflib.get_close_matches(name, images, n=1)
            meant = f" Did you mean {near[0]}?" if near else ""
            raise BadInput(f"{name!r} is neither an image nor a task.{meant}", fix=f"known images: {', '.join(images)}")
    return [images[name] for name in wanted or images]


def build_arguments(image: Image, settings: Settings) -> dict[str, str]:
    """The build arguments that the image's Dockerfile knows."""
    dockerfile = (image.folder / "Dockerfile").read_text(encoding="utf-8")
    known = {"PYTHON_IMAGE": settings.python_image, "NGINX_IMAGE": settings.nginx_image}
    return {name: value for name, value in known.items() if f"ARG {name}" in dockerfile}


def context_digest(image: Image, settings: Settings) -> str:
    """A digest of all that a build reads: names, modes and contents of the files, arguments, and the label's project."""
    digest = hashlib.sha256(json.dumps([build_arguments(image, settings), settings.project], sort_keys=True).encode())
    for file in sorted(path for path in image.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        executable = os.access(file, os.X_OK)
        digest.update(f"\0{file.relative_to(image.folder).as_posix()}\0{executable}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return f"sha256:{digest.hexdigest()}"


def labels(image: Image, settings: Settings, made_from: Revision, version: str) -> dict[str, str]:
    """OCI's predefined annotation keys, and our own two: the project and the digest of the context."""
    created = datetime.datetime.fromtimestamp(made_from.time, datetime.UTC)
    return {
        "org.opencontainers.image.title": image.name,
        VERSION_LABEL: version,
        REVISION_LABEL: revision_label(made_from),
        "org.opencontainers.image.created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "org.opencontainers.image.source": settings.source_url or f"{settings.project}/{image.name}",
        PROJECT_LABEL: settings.project,
        CONTEXT_LABEL: context_digest(image, settings),
    }


def build_argv(
    image: Image, settings: Settings, made_from: Revision, version: str, no_cache: bool = False, pull: bool = False
) -> list[str]:
    """The command that builds an image. The commit's time is the image's, so that two builds are one image."""
    argv = ["docker", "buildx", "build", "--tag", f"{image.name}:latest", "--tag", image.local(settings.project)]
    argv += ["--provenance=false"]
    argv += ["--no-cache"] * no_cache + ["--pull"] * pull
    for name, value in {**build_arguments(image, settings), "SOURCE_DATE_EPOCH": str(made_from.time)}.items():
        argv += ["--build-arg", f"{name}={value}"]
    for name, value in labels(image, settings, made_from, version).items():
        argv += ["--label", f"{name}={value}"]
    if settings.ca_bundle:
        argv += ["--secret", f"id=ca_bundle,src={settings.ca_bundle}"]
    return [*argv, str(image.folder)]


def lint(world: World, images: Sequence[Image]) -> None:
    """hadolint on every Dockerfile; findings are a failure."""
    for image in images:
        world.check([tool("hadolint"), "--no-color", str(image.folder / "Dockerfile")])


def build(world: World, settings: Settings, images: Sequence[Image], no_cache: bool = False, pull: bool = False) -> None:
    """Build with BuildKit; an image that is there stays until the new one is whole."""
    version = revision.devpi_version(ROOT)
    for image in images:
        made_from = revision.read(world, ROOT, image.folder)
        world.run(
            build_argv(image, settings, made_from, version, no_cache, pull),
            fix="behind a TLS proxy, CA_BUNDLE; without a registry, PYTHON_IMAGE and NGINX_IMAGE name base images that are here",
        )


def local_labels(world: World, reference: str) -> dict[str, str]:
    """The labels of an image on this engine; empty where there is none."""
    result = world.ask(["docker", "image", "inspect", "--format", "{{json .Config.Labels}}", reference], check=False)
    if result.returncode != 0 and "No such image" not in result.stderr and not world.dry:
        raise Failed(result.stderr.strip())
    found: dict[str, str] = (json.loads(result.stdout) if result.returncode == 0 else None) or {}
    return found


def outdated(world: World, settings: Settings, images: Sequence[Image]) -> list[Image]:
    """The images that are missing here, or were made from something else than their folder holds now, or from the same
    before it was committed: a clean commit is never published under the name of a dirty one."""

    def is_old(image: Image) -> bool:
        found = local_labels(world, image.local(settings.project))
        if found.get(CONTEXT_LABEL) != context_digest(image, settings):
            return True
        now = revision.read(world, ROOT, image.folder)
        return not is_clean(found.get(REVISION_LABEL, "unknown")) and is_clean(revision_label(now))

    return [image for image in images if is_old(image)]


def revision_label(made_from: Revision) -> str:
    """The commit as a label has it."""
    return made_from.commit + ("-dirty" if made_from.dirty else "")


def is_clean(label: str) -> bool:
    """Whether a revision label is a commit and nothing but that commit."""
    return label != "unknown" and not label.endswith("-dirty")


def immutable_tag(labels: dict[str, str]) -> str:
    """The tag that is never moved: devpi's version and the commit; an uncommitted context adds its own digest."""
    label = labels.get(REVISION_LABEL, "unknown")
    mark = "" if is_clean(label) else f"-dirty-{labels.get(CONTEXT_LABEL, '').removeprefix('sha256:')[:12]}"
    return f"{labels.get(VERSION_LABEL, 'unknown')}-{label.removesuffix('-dirty')[:12]}{mark}"


def require_registry(settings: Settings) -> None:
    """Refuse an empty REGISTRY before it costs a build."""
    if not settings.registry:
        raise BadInput("REGISTRY is empty.", fix="set it in .env, for example REGISTRY=127.0.0.1:5000")


class Pair(NamedTuple):
    """Both names that an image gets in the registry."""

    immutable: str
    latest: str


def names(image: Image, settings: Settings, found: dict[str, str]) -> Pair:
    """The names of an image with these labels."""
    return Pair(*(image.published(settings.registry, tag) for tag in (immutable_tag(found), "latest")))


def tag(world: World, settings: Settings, images: Sequence[Image]) -> list[Pair]:
    """Build what is outdated, then tag everything for the registry; returns the names."""
    require_registry(settings)
    stale = outdated(world, settings, images)
    if stale:
        lint(world, stale)
        build(world, settings, stale)
    pairs = [names(image, settings, found_or_planned(world, settings, image)) for image in images]
    for image, pair in zip(images, pairs, strict=True):
        for name in pair:
            world.run(["docker", "tag", image.local(settings.project), name])
    return pairs


def found_or_planned(world: World, settings: Settings, image: Image) -> dict[str, str]:
    """The labels of the built image; in a dry run, where nothing was built, the ones that it would get."""
    found = local_labels(world, image.local(settings.project))
    if world.dry and found.get(CONTEXT_LABEL) != context_digest(image, settings):
        return labels(image, settings, revision.read(world, ROOT, image.folder), revision.devpi_version(ROOT))
    return found
