"""The files that start clusters: they fit the schemas of their readers, and promise what SECURITY.md says."""

from __future__ import annotations

import importlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pipelines.cluster.node_types import read_node_types
from pipelines.cluster.placement import STAGE_ROLES
from serve.on_cluster import Arguments
from tests.deploy.kuberay_schema import RAY_JOB, RAY_SERVICE

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "cluster.yaml"
JOB, SERVICE = ROOT / "deploy/kuberay/rayjob.yaml", ROOT / "deploy/kuberay/rayservice.yaml"
SERVE = ROOT / "deploy/serve.yaml"


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def test_the_launchers_file_fits_rays_own_schema() -> None:
    import ray.autoscaler
    from ray.autoscaler._private.util import prepare_config, validate_config  # Ray has no public check

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(read(LAUNCHER), schema)
    validate_config(prepare_config(read(LAUNCHER)))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(read(LAUNCHER) | {"max_worker": 3}, schema)


@pytest.mark.parametrize(("file", "schema"), [(JOB, RAY_JOB), (SERVICE, RAY_SERVICE)], ids=["RayJob", "RayService"])
def test_kuberays_manifests_fit_their_fields(file: Path, schema: dict[str, Any]) -> None:
    jsonschema.validate(read(file), schema)


def without_token(document: Any) -> None:
    del document["spec"]["rayClusterSpec"]["authOptions"]


def open_port(document: Any) -> None:
    document["spec"]["rayClusterSpec"]["headGroupSpec"]["serviceType"] = "LoadBalancer"


def typing_error(document: Any) -> None:
    document["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplica"] = 3


def number_as_start_parameter(document: Any) -> None:
    document["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


@pytest.mark.parametrize("damage", [without_token, open_port, typing_error, number_as_start_parameter])
def test_the_fields_refuse_a_wrong_manifest(damage: Callable[[Any], None]) -> None:
    document = read(JOB)
    damage(document)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, RAY_JOB)


@pytest.mark.parametrize("file", [LAUNCHER, JOB], ids=["launcher", "RayJob"])
def test_every_role_has_nodes_teachers_have_gpus_and_the_head_does_no_work(file: Path) -> None:
    types = {kind.name: kind for kind in read_node_types(file)}
    offered = {name for kind in types.values() for name in kind.resources}
    assert set(STAGE_ROLES.values()) <= offered
    assert all(kind.resources["GPU"] == 1 for kind in types.values() if "teachers" in kind.resources)
    assert types["head"].resources["CPU"] == 0


def test_the_launchers_cluster_asks_for_a_token_and_opens_no_port() -> None:
    config = read(LAUNCHER)
    starts = [line for key in ("head", "worker") for line in config[f"{key}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert config["provider"]["use_internal_ips"] is True
    assert any(target.endswith("/.ray/auth_token") for target in config["file_mounts"])
    assert "0.0.0.0" not in LAUNCHER.read_text(encoding="utf-8")


def applications(file: Path) -> Iterator[Any]:
    content = read(file)
    yield from (yaml.safe_load(content["spec"]["serveConfigV2"]) if "spec" in content else content)["applications"]


@pytest.mark.parametrize("file", [SERVE, SERVICE], ids=["serve deploy", "RayService"])
def test_the_endpoint_that_a_file_names_can_be_imported_and_takes_its_arguments(file: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    content = read(file)
    ServeDeploySchema.model_validate(yaml.safe_load(content["spec"]["serveConfigV2"]) if "spec" in content else content)
    for application in applications(file):
        module, _, name = application["import_path"].partition(":")
        assert callable(getattr(importlib.import_module(module), name))
        arguments = Arguments.model_validate(application["args"])
        assert arguments.resources == {"serve": 0.001}


def test_images_and_manifests_are_of_the_ray_that_is_pinned() -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert pinned is not None
    container = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")
    assert f"rayproject/ray:{pinned[1]}-py311" in container
    assert read(JOB)["spec"]["rayClusterSpec"]["rayVersion"] == pinned[1]
    assert read(SERVICE)["spec"]["rayClusterConfig"]["rayVersion"] == pinned[1]
    images = re.findall(r"image: (\S+)", "".join(file.read_text(encoding="utf-8") for file in (LAUNCHER, JOB, SERVICE)))
    assert images
    assert all(f"/distilrec:{version}" in image for image in images)


def test_the_container_file_copies_what_exists_and_holds_no_secret() -> None:
    text = (ROOT / "deploy/Containerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY --chown=\S+ (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split())
    assert not re.search(r"^(ENV|ARG) .*(TOKEN|SECRET|PASSWORD|KEY)=", text, re.MULTILINE)
    assert "USER root" not in text
