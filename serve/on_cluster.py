"""The endpoint as an application that Ray Serve's own tools deploy: ``serve deploy``, or a RayService on Kubernetes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from components.errors import UserError
from serve.endpoint import build
from serve.settings import Settings


class Arguments(BaseModel):
    """``args`` of the application.

    Attributes:
        artifact: folder of the exported artifact, on a path that every node of the role ``serve`` sees.
        keys_file: API keys, see `serve.keys.read_keys`; a file on every node, such as a mounted secret.
        replicas: processes that answer.
        resources: custom resources that say on which nodes.
        timeout_s: how long an answer may take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact: str
    keys_file: str
    replicas: int = Field(default=1, ge=1)
    resources: dict[str, float] = {}
    timeout_s: float = Field(default=10.0, gt=0)


def app(arguments: Arguments) -> Any:
    """The application. It answers other machines, so it asks everyone for a key.

    Raises:
        UserError: the file of keys is not there: everyone could ask.
    """
    if not Path(arguments.keys_file).is_file():
        raise UserError(f"keys_file: {arguments.keys_file} does not exist; make one: distilrec key new --help")
    settings = Settings(
        keys_file=arguments.keys_file, loopback_only=False, access_log="json", timeout_s=arguments.timeout_s
    )
    return build(arguments.artifact, settings, arguments.replicas, resources=arguments.resources)
