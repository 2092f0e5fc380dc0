"""Heavy models that teach small ones."""

from components.model import ModelSpec
from components.teachers import unim2rec, unisrec
from components.teachers.recformer import model as recformer

TEACHERS: dict[str, ModelSpec] = {
    "recformer": ModelSpec(
        recformer.RecformerConfig, recformer.build, reads_attributes=True, training=recformer.TRAINING
    ),
    "unim2rec": ModelSpec(unim2rec.UniM2RecConfig, unim2rec.build),
    "unisrec": ModelSpec(unisrec.UniSRecConfig, unisrec.build),
}
