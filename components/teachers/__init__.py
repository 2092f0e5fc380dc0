"""Heavy models that teach small ones."""

from components.model import ModelSpec
from components.teachers import unim2rec, unisrec

TEACHERS: dict[str, ModelSpec] = {
    "unim2rec": ModelSpec(unim2rec.UniM2RecConfig, unim2rec.build),
    "unisrec": ModelSpec(unisrec.UniSRecConfig, unisrec.build),
}
