"""The fields of KubeRay's custom resources that our manifests use, with their types; any other field is refused.

KubeRay's own schemas are a megabyte of YAML that no package brings, so this one is written by hand after its Go types
(ray-operator/apis/ray/v1). A field that our manifests begin to use is looked up there and added here.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
YES: Schema = {"type": "boolean"}
TEXTS: Schema = {
    "type": "object",
    "additionalProperties": {"type": "string"},
}  # start parameters are texts, numbers too
QUANTITIES: Schema = {
    "type": "object",
    "required": ["cpu", "memory"],
    "additionalProperties": {"type": "string", "pattern": "^[0-9.]+(m|[kMGT]i?)?$"},
}


def fields(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "required": required, "additionalProperties": False, "properties": properties}


def several(item: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": item, "minItems": 1, **more}


CONTAINER = fields(
    ["name", "image", "resources"],
    name=TEXT,
    image=TEXT,
    resources=fields(["limits", "requests"], limits=QUANTITIES, requests=QUANTITIES),
    volumeMounts=several(fields(["name", "mountPath"], name=TEXT, mountPath=TEXT, readOnly=YES)),
)
POD = fields(
    ["containers", "securityContext"],
    serviceAccountName=TEXT,
    automountServiceAccountToken=YES,
    securityContext=fields(["runAsNonRoot"], runAsNonRoot={"const": True}, runAsUser=COUNT, fsGroup=COUNT),
    nodeSelector=TEXTS,
    tolerations=several(
        fields(
            ["key"],
            key=TEXT,
            operator={"enum": ["Exists", "Equal"]},
            value=TEXT,
            effect={"enum": ["NoSchedule", "NoExecute"]},
        )
    ),
    containers=several(CONTAINER),
    volumes=several(
        fields(
            ["name"],
            name=TEXT,
            configMap=fields(["name"], name=TEXT),
            secret=fields(["secretName"], secretName=TEXT, defaultMode=COUNT),
            persistentVolumeClaim=fields(["claimName"], claimName=TEXT),
        )
    ),
)
TEMPLATE = fields(["spec"], spec=POD)
CLUSTER = fields(
    ["rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"],
    rayVersion=TEXT,
    authOptions=fields(["mode"], mode={"const": "token"}),
    enableInTreeAutoscaling=YES,
    headGroupSpec=fields(
        ["rayStartParams", "template"],
        serviceType={"const": "ClusterIP"},  # the others open a port to the world
        rayStartParams=TEXTS,
        template=TEMPLATE,
    ),
    workerGroupSpecs=several(
        fields(
            ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=TEXTS,
            template=TEMPLATE,
        )
    ),
)
METADATA = fields(["name", "namespace"], name={"type": "string", "pattern": "^[a-z0-9-]{1,40}$"}, namespace=TEXT)


def resource(kind: str, spec: Schema) -> Schema:
    return fields(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=METADATA,
        spec=spec,
    )


RAY_JOB = resource(
    "RayJob",
    fields(
        ["entrypoint", "rayClusterSpec"],
        entrypoint=TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
        backoffLimit=COUNT,
        activeDeadlineSeconds={"type": "integer", "minimum": 1},
        shutdownAfterJobFinishes=YES,
        ttlSecondsAfterFinished=COUNT,
        rayClusterSpec=CLUSTER,
    ),
)
RAY_SERVICE = resource(
    "RayService", fields(["serveConfigV2", "rayClusterConfig"], serveConfigV2=TEXT, rayClusterConfig=CLUSTER)
)
