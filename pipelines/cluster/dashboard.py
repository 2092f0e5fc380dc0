"""The dashboard of a Ray cluster over HTTP: whether it is there, who it lets in, which Ray it runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx

from components.errors import ResourceError, UserError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

SECONDS: Final = 5.0  # to answer; a cluster that takes longer is not reachable for a person
PORT: Final = 8265
AUTH_HELP: Final = (
    "put the cluster's token into a file that only you can read, then set RAY_AUTH_MODE=token and "
    "RAY_AUTH_TOKEN_PATH=FILE (or write it to ~/.ray/auth_token)"
)


def dashboard_url(address: str) -> str:
    """The URL of a dashboard.

    Raises:
        UserError: `address` is that of another service of the cluster.

    >>> dashboard_url("head:8265"), dashboard_url("https://ray.example.org/")
    ('http://head:8265', 'https://ray.example.org')
    """
    scheme = address.partition("://")[0] if "://" in address else ""
    if scheme not in ("", "http", "https"):
        raise UserError(
            f"--address {address}: expected the cluster's dashboard, such as http://127.0.0.1:{PORT}; jobs do not go "
            f"through {scheme}://"
        )
    url = address if scheme else f"http://{address}"
    parts = urlsplit(url)
    if not parts.hostname or parts.username or parts.password:
        raise UserError(
            f"--address: expected the cluster's dashboard, such as http://127.0.0.1:{PORT}, without a password"
        )
    return url.rstrip("/")


def auth_token(environment: Mapping[str, str], home: Path) -> str | None:
    """The cluster's token, from where Ray takes it: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ``~/.ray/auth_token``.

    Raises:
        UserError: RAY_AUTH_TOKEN_PATH names no file that can be read.
    """
    if environment.get("RAY_AUTH_MODE") == "disabled":
        return None
    if token := environment.get("RAY_AUTH_TOKEN", "").strip():
        return token
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named).expanduser() if named else home / ".ray" / "auth_token"
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except OSError as error:
        if named:
            raise UserError(f"RAY_AUTH_TOKEN_PATH={named}: cannot be read: {error.strerror}; {AUTH_HELP}") from error
        return None


class Dashboard:
    """A cluster's dashboard that answered, and lets us in.

    Args:
        address: of the dashboard.
        environment: holds the token.

    Raises:
        ResourceError: it cannot be reached, asks for another token, or is none of Ray's.
    """

    def __init__(self, address: str, environment: Mapping[str, str] | None = None) -> None:
        self.url = dashboard_url(address)
        token = auth_token(os.environ if environment is None else environment, Path.home())
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.has_token = token is not None
        self.ray_version = str(self.get("/api/version").get("ray_version", ""))
        self.get("/api/jobs/")  # the version may be told to everyone

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON document at `path`.

        Raises:
            ResourceError: see the class.
        """
        try:
            answer = httpx.get(f"{self.url}{path}", params=parameters, headers=self._headers, timeout=SECONDS)
        except httpx.HTTPError as error:
            raise ResourceError(
                f"no Ray cluster answers at {self.url}: {error or type(error).__name__}; check --address: the "
                "dashboard's "
                f"host and port ({PORT} by default). It listens on its own node's loopback only: open a tunnel with "
                f"`ray dashboard cluster.yaml`, `ssh -L {PORT}:127.0.0.1:{PORT} HEAD` or `kubectl port-forward`"
            ) from error
        if answer.status_code in (401, 403):
            what = "refuses the token that is set here" if self.has_token else "asks for a token, and none is set here"
            raise ResourceError(f"the cluster at {self.url} {what}; {AUTH_HELP}")
        if answer.status_code != 200 or "json" not in answer.headers.get("content-type", ""):
            raise ResourceError(
                f"{self.url}{path} answered {answer.status_code} {answer.headers.get('content-type', '')}: this is not "
                "the dashboard of a Ray cluster that takes jobs; check --address, and that the head node has "
                "ray[default]"
            )
        return answer.json()

    def check_version(self) -> None:
        """Refuse a cluster that runs another Ray.

        Raises:
            ResourceError: both versions, and what to do.
        """
        import ray

        if self.ray_version.split(".")[:2] != ray.__version__.split(".")[:2]:
            raise ResourceError(
                f"the cluster at {self.url} runs Ray {self.ray_version}, here is Ray {ray.__version__}; install the "
                "same "
                f"version on both sides: pip install 'ray[default]=={self.ray_version}', or another image for the "
                "cluster"
            )

    def jobs(self) -> JobSubmissionClient:
        """Ray's own client for jobs."""
        from ray.job_submission import JobSubmissionClient

        # Ray lets these two overrule what it is told.
        before = {name: os.environ.pop(name, None) for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")}
        try:
            return JobSubmissionClient(self.url, headers=dict(self._headers))
        finally:
            os.environ.update({name: value for name, value in before.items() if value is not None})

    def nodes(self) -> list[dict[str, float]]:
        """Resources of every live node."""
        listed = self.get("/api/v0/nodes", detail=1, limit=10_000)["data"]["result"]["result"]
        return [dict(node["resources_total"]) for node in listed if node["state"] == "ALIVE"]
