"""In how many bits a trained student is stored."""

from tune_spaces.domain import space

SPACE = space(
    {
        "student.compression.item_precision": ["fp32", "bf16", "int8"],
        "student.compression.network_precision": ["fp32", "bf16", "int8"],
    }
)
