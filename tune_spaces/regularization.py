"""What keeps the student from learning the log by heart, and how fast it learns."""

from tune_spaces.domain import space

SPACE = space({"student.dropout": {"uniform": [0.1, 0.6]}, "training.learning_rate": {"log_uniform": [3e-4, 5e-3]}})
