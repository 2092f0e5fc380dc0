"""Heavy models that teach small ones."""

from components.model import ModelSpec
from components.teachers import unisrec

TEACHERS: dict[str, ModelSpec] = {
    "unisrec": ModelSpec(unisrec.UniSRecConfig, unisrec.build),
}
