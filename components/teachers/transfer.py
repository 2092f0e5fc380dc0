"""What a pre-trained teacher hands over to the teacher of another catalog."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from components.errors import ArtifactError


def transferred(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], wanted: Mapping[str, str], kind: str, arguments: str
) -> dict[str, Tensor]:
    """`own` with the wanted tensors of a saved model in their places.

    Args:
        own: the teacher's state.
        tensors: those of the pre-trained model.
        wanted: the teacher's names of what is handed over -> their names in the saved model.
        kind: of the teacher, for messages.
        arguments: those that decide the shapes, for messages.

    Raises:
        ArtifactError: a tensor is missing or has another shape; the message names it.
    """
    for name, saved in wanted.items():
        if saved not in tensors:
            raise ArtifactError(f"pre-trained weights lack {saved!r}; pre-train a {kind} of the same arguments")
        if tensors[saved].shape != own[name].shape:
            raise ArtifactError(
                f"pre-trained weights: {saved!r} has shape {tuple(tensors[saved].shape)}, the teacher needs "
                f"{tuple(own[name].shape)}; use the same {arguments}"
            )
    return {**own, **{name: tensors[saved] for name, saved in wanted.items()}}
