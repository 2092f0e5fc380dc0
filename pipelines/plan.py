"""Which nodes run and which are skipped, and why: pure functions over what is configured and what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from pipelines.cache import Stored, node_key
from pipelines.graph import Node
from pipelines.stages import STAGES


@dataclass(frozen=True)
class Decision:
    """What happens to a node.

    Attributes:
        node: its name.
        run: whether it runs; otherwise its finished folder is used as it is.
        reason: for people.
    """

    node: str
    run: bool
    reason: str


def decide(
    node: Node,
    stored: Stored | None,
    inputs: Mapping[str, str],
    fingerprint: str = "",
    forced: str = "",
    waiting: AbstractSet[str] = frozenset(),
) -> Decision:
    """Decide on one node.

    Args:
        node: what is configured now.
        stored: what the run folder holds of it.
        inputs: content digests of the inputs that are finished.
        fingerprint: identity of the files outside the run folder that it reads.
        forced: why it must run in any case, ``""`` where it need not.
        waiting: inputs that will run first; what they will hold is not known yet.
    """
    if forced:
        return Decision(node.name, True, forced)
    if stored is None:
        return Decision(node.name, True, "not done yet")
    if stored.damage:
        return Decision(node.name, True, f"its result is damaged: {stored.damage}")
    reason = _changes(node, stored.manifest, inputs, fingerprint, waiting)
    if not reason and not waiting and stored.key != node_key(node, inputs, fingerprint):
        reason = "its key changed"
    if not reason and waiting:
        reason = f"{_listed(waiting)} will run"
    return Decision(node.name, bool(reason), reason or "done already")


def plan(
    nodes: Sequence[Node],
    stored: Mapping[str, Stored | None],
    fingerprints: Mapping[str, str],
    forced_stage: str = "",
) -> list[Decision]:
    """Decide on all nodes before any runs; a node behind one that runs counts as one that runs.

    Args:
        nodes: the graph, inputs first.
        stored: what the run folder holds, by node name.
        fingerprints: of the nodes that read files outside the run folder.
        forced_stage: this stage and all that depends on it run in any case.
    """
    decisions: dict[str, Decision] = {}
    reasons = forced_nodes(nodes, forced_stage)
    for node in nodes:
        waiting = {name for name in node.inputs if decisions[name].run}
        known = {name: found.digest for name in node.inputs if name not in waiting and (found := stored.get(name))}
        decisions[node.name] = decide(
            node, stored.get(node.name), known, fingerprints.get(node.name, ""), reasons.get(node.name, ""), waiting
        )
    return list(decisions.values())


def forced_nodes(nodes: Sequence[Node], stage: str) -> dict[str, str]:
    """The nodes that ``--from stage`` forces, with the reason; nodes come inputs first."""
    reasons: dict[str, str] = {}
    for node in nodes:
        behind = [name for name in node.inputs if name in reasons]
        if node.stage == stage:
            reasons[node.name] = f"forced by --from {stage}"
        elif behind:
            reasons[node.name] = f"forced: it needs {_listed(behind)}"
    return reasons


def _changes(
    node: Node, manifest: Mapping[str, Any], inputs: Mapping[str, str], fingerprint: str, waiting: AbstractSet[str]
) -> str:
    """The first difference between what was done and what is asked for, ``""`` where there is none."""
    version = STAGES[node.stage].code_version
    if manifest.get("code_version") != version:
        return f"the stage's code changed: version {manifest.get('code_version')} is now {version}"
    keys = changed_keys(manifest.get("config"), dict(node.part))
    if keys:
        return f"its configuration changed: {_listed(keys)}"
    if manifest.get("fingerprint", "") != fingerprint:
        return "its input files changed"
    before: Mapping[str, str] = manifest.get("inputs", {})
    if set(before) != {*inputs, *waiting}:
        return f"its inputs changed: {_listed(set(before) ^ {*inputs, *waiting})}"
    different = [name for name in inputs if before[name] != inputs[name]]
    return f"its input changed: {_listed(different)}" if different else ""


def changed_keys(before: Any, now: Any, path: str = "") -> list[str]:
    """Dotted keys in which two configurations differ.

    >>> changed_keys({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}})
    ['a.b']
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        names = sorted({*before, *now})
        pairs = [(name, before.get(name), now.get(name)) for name in names]
        return [key for name, old, new in pairs for key in changed_keys(old, new, f"{path}.{name}" if path else name)]
    return [] if before == now else [path]


def _listed(names: AbstractSet[str] | Sequence[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:3]) + (f" and {len(ordered) - 3} more" if len(ordered) > 3 else "")
