"""The Docker environments: a Compose file rendered from a template each. What is done with it: ``stack.py``."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pypi_tasks import secret
from pypi_tasks.check import in_bytes
from pypi_tasks.errors import BadInput
from pypi_tasks.image import Image
from pypi_tasks.settings import HIDDEN, ROOT, Settings, fields
from pypi_tasks.world import World

TEMPLATES = ROOT / "compose"
SUFFIX = ".yaml.j2"


def variants(folder: Path = TEMPLATES) -> list[str]:
    """The environments that have a template: every file but the base."""
    return sorted(file.name.removesuffix(SUFFIX) for file in folder.glob(f"[!_]*{SUFFIX}") if file.name != f"base{SUFFIX}")


def variant(env: str) -> str:
    """The name itself, if it has a template; BadInput lists those that have."""
    if env not in variants():
        raise BadInput(f"{env!r} has no template in compose/.", fix=f"known: {', '.join(variants())}")
    return env


def quoted(value: object) -> str:
    """A value as YAML, which JSON is part of, with Compose's own ``$`` kept from meaning anything."""
    plain = value if isinstance(value, bool | int) else str(value)
    return json.dumps(plain, ensure_ascii=False).replace("$", "$$")


def variables(settings: Settings, env: str, images: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What a template may use: every setting but the passwords, ENV, SECRETS, and the two names of an image; or the one that
    ``images`` has for it."""
    values = {name: getattr(settings, name.lower()) for name in fields() if name not in HIDDEN}

    def published(name: str) -> str:
        if not settings.registry:
            raise BadInput(f"REGISTRY is empty; {env} runs images from it.", fix="set REGISTRY in .env")
        return Image(name, ROOT / name).published(settings.registry, tag_of(settings, name))

    def local(name: str) -> str:
        return Image(name, ROOT / name).local(settings.project)

    return {
        **values,
        "ENV": env,
        "CLIENT_URL": settings.client_url,
        "SECRETS": [file.path.name for file in secret.files(settings)],
        "local_image": images.__getitem__ if images else local,
        "published_image": images.__getitem__ if images else published,
    }


def tag_of(settings: Settings, name: str) -> str:
    """The tag under which stable takes an image. A digest is one image's alone."""
    if name != "pypi_proxy":
        return settings.tag
    if settings.tag.startswith("sha256:") and not settings.proxy_tag:
        raise BadInput("TAG is a digest, which names the server's image alone.", fix="set PROXY_TAG to the proxy's")
    return settings.proxy_tag or settings.tag


def render(settings: Settings, env: str, folder: Path = TEMPLATES, images: Mapping[str, str] | None = None) -> str:
    """The Compose file of an environment. A name that is nobody's setting is a BadInput with its template and line."""
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    templates.filters["yaml"] = quoted
    templates.filters["bytes"] = in_bytes
    try:
        return templates.get_template(f"{env}{SUFFIX}").render(variables(settings, env, images))
    except jinja2.UndefinedError as error:
        raise BadInput(
            f"compose/{template_line(error, folder, env)}: {error.message}.", fix="`inv config` lists the settings"
        ) from None
    except jinja2.TemplateSyntaxError as error:
        raise BadInput(f"compose/{error.name} line {error.lineno}: {error.message}") from None
    except jinja2.TemplateNotFound as error:
        raise BadInput(f"compose/{env}{SUFFIX} needs {error.name}, which is not there.") from None
    except (jinja2.TemplateError, TypeError) as error:
        raise BadInput(f"compose/{template_line(error, folder, env)}: {error}") from None


def template_line(error: BaseException, folder: Path, env: str) -> str:
    """Name and line of the template in which an error arose; Jinja puts them into the traceback."""
    where, frame = f"{env}{SUFFIX}", error.__traceback__
    while frame:
        file = Path(frame.tb_frame.f_code.co_filename)
        if file.parent == folder:
            where = f"{file.name} line {frame.tb_lineno}"
        frame = frame.tb_next
    return where


def lint(world: World, settings: Settings) -> None:
    """Render every variant and have Compose check it, where Compose is there."""
    has_compose = shutil.which("docker") and world.ask(["docker", "compose", "version"], check=False).returncode == 0
    # A registry is needed to run stable, not to see whether its template is right.
    complete = settings if settings.registry else dataclasses.replace(settings, registry="registry.invalid")
    for env in variants():
        text = render(complete, env)
        if has_compose:
            world.check(["docker", "compose", "--file", "-", "config", "--quiet"], stdin=text)
        else:
            world.warn(f"{env} is rendered but not checked: Compose is not there.")


def wrong_links(settings: Settings) -> str:
    """What other machines will meet; empty for nothing. Pages of packages have relative links, all others this address."""
    if settings.devpi_bind not in ("0.0.0.0", "::") or settings.outside_url:
        return ""
    return f"DEVPI_BIND={settings.devpi_bind} without OUTSIDE_URL: web pages and devpi's client will link {settings.client_url}."
