"""Where blocks of items end, how narrow their vectors are, what scores them, and which layers share weights."""

from tune_spaces.domain import space

SPACE = space(
    {
        "student.compression.num_blocks": [2, 3, 4],
        "student.compression.share": {"uniform": [0.05, 0.5]},
        "student.compression.factor": [2, 4, 8],
        "student.compression.output": ["tied", "tree", "flat"],
        "student.compression.sharing": ["none", "cb", "ab"],
    }
)
