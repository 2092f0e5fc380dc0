"""How wide the student is; every width here can be divided by one, two or four heads."""

from tune_spaces.domain import space

SPACE = space({"student.dim": [32, 48, 64, 96, 128]})
