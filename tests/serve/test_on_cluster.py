from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from components.errors import UserError
from serve.keys import new_key
from serve.on_cluster import Arguments, app

BUILD = """
import json, sys
from serve.on_cluster import Arguments, app
made = app(Arguments.model_validate_json(sys.argv[1]))._bound_deployment  # Ray shows what was bound nowhere else
print(json.dumps([made.num_replicas, made.ray_actor_options, *made.init_args[:2]]))
"""


def test_the_application_asks_everyone_for_a_key_and_runs_where_it_is_told(tmp_path: Path) -> None:
    """In a process of its own: once a test has used the batching of Ray Serve, its queues cannot be sent anywhere."""
    new_key("shop", tmp_path / "keys")
    arguments = Arguments(
        artifact="/shared/export", keys_file=str(tmp_path / "keys"), replicas=3, resources={"serve": 0.001}
    )
    command = [sys.executable, "-c", BUILD, arguments.model_dump_json()]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300, check=True
    )
    replicas, options, artifact, settings = json.loads(done.stdout.splitlines()[-1])
    assert replicas == 3
    assert options == {"num_cpus": 1, "resources": {"serve": 0.001}}
    assert artifact == "/shared/export"
    assert settings["keys_file"] == str(tmp_path / "keys")
    assert settings["loopback_only"] is False


def test_without_keys_there_is_no_application(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist; make one: distilrec key new"):
        app(Arguments(artifact="/shared/export", keys_file=str(tmp_path / "none")))
    with pytest.raises(ValidationError, match="keys_file"):
        Arguments.model_validate({"artifact": "/shared/export"})
