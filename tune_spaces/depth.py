"""How many layers a student has that counts them: sasrec, bert4rec, gru4rec, recguru."""

from tune_spaces.domain import space

SPACE = space({"student.num_layers": [1, 2, 3]})
