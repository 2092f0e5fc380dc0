from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from components.errors import UserError
from serve.keys import new_key
from serve.on_cluster import Arguments, app


def test_the_application_asks_everyone_for_a_key_and_runs_where_it_is_told(tmp_path: Path) -> None:
    new_key("shop", tmp_path / "keys")
    arguments = Arguments(
        artifact="/shared/export", keys_file=str(tmp_path / "keys"), replicas=3, resources={"serve": 0.001}
    )
    deployment = app(arguments)._bound_deployment  # Ray shows what was bound nowhere else
    assert deployment.num_replicas == 3
    assert deployment.ray_actor_options == {"num_cpus": 1, "resources": {"serve": 0.001}}
    artifact, settings = deployment.init_args[:2]
    assert artifact == "/shared/export"
    assert settings["keys_file"] == str(tmp_path / "keys")
    assert settings["loopback_only"] is False


def test_without_keys_there_is_no_application(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; make one: distilrec key new"):
        app(Arguments(artifact="/shared/export", keys_file=str(tmp_path / "none")))
    with pytest.raises(ValidationError, match="keys_file"):
        Arguments.model_validate({"artifact": "/shared/export"})
