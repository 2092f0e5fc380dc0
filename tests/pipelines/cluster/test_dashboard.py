from __future__ import annotations

import socket
from pathlib import Path

import pytest

from components.errors import ResourceError, UserError
from pipelines.cluster.dashboard import Dashboard, auth_token, dashboard_url
from tests.pipelines.cluster.fake_dashboard import ANSWERS, dashboard

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "right"}


def test_a_cluster_that_answers_tells_its_nodes() -> None:
    with dashboard(token="right") as url:
        cluster = Dashboard(url, TOKEN)
        cluster.check_version()
        assert cluster.nodes() == [{"CPU": 4.0, "memory": 8e9}]


def test_nobody_there_is_an_error_that_says_how_to_get_there() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(ResourceError, match=rf"no Ray cluster answers at {url}.*check --address.*ssh -L 8265"):
        Dashboard(url, {})


def test_a_missing_and_a_wrong_token_are_told_apart() -> None:
    with dashboard(token="right") as url:
        with pytest.raises(ResourceError, match=r"asks for a token, and none is set here; .*RAY_AUTH_TOKEN_PATH"):
            Dashboard(url, {"RAY_AUTH_MODE": "disabled"})
        with pytest.raises(ResourceError, match="refuses the token that is set here") as refused:
            Dashboard(url, {**TOKEN, "RAY_AUTH_TOKEN": "wrong-secret"})
    assert "wrong-secret" not in str(refused.value)


def test_another_service_is_told_from_a_cluster() -> None:
    with dashboard(kind="text/html") as url, pytest.raises(ResourceError, match="answered 200 text/html: this is not"):
        Dashboard(url, {})
    with dashboard({}) as url, pytest.raises(ResourceError, match="answered 404"):
        Dashboard(url, {})


def test_another_ray_is_refused_with_both_versions() -> None:
    old = {**ANSWERS, "/api/version": {"ray_version": "2.9.3"}}
    with (
        dashboard(old) as url,
        pytest.raises(ResourceError, match=r"runs Ray 2\.9\.3, here is Ray .*ray\[default\]==2\.9\.3"),
    ):
        Dashboard(url, {}).check_version()


@pytest.mark.parametrize("address", ["ray://head:10001", "http://user:password@head:8265", "http://"])
def test_other_addresses_are_refused_without_repeating_a_password(address: str) -> None:
    with pytest.raises(UserError, match=r"expected the cluster's dashboard") as refused:
        dashboard_url(address)
    assert "password@" not in str(refused.value)


def test_the_token_comes_from_where_ray_takes_it(tmp_path: Path) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("of home\n")
    (tmp_path / "file").write_text("of file\n")
    named = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "file")}
    assert auth_token({}, tmp_path) == "of home"
    assert auth_token(named, tmp_path) == "of file"
    assert auth_token({**named, "RAY_AUTH_TOKEN": "of variable"}, tmp_path) == "of variable"
    assert auth_token({**named, "RAY_AUTH_MODE": "disabled"}, tmp_path) is None
    assert auth_token({}, tmp_path / "elsewhere") is None
    with pytest.raises(UserError, match="RAY_AUTH_TOKEN_PATH=/none: cannot be read"):
        auth_token({"RAY_AUTH_TOKEN_PATH": "/none"}, tmp_path)
