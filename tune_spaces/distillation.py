"""How strongly the student follows its teachers, how sharply they speak, and when the odd one out is dropped."""

from tune_spaces.domain import space

SPACE = space(
    {
        "distillation.weight": {"log_uniform": [1.0, 30.0]},
        "distillation.temperature": {"log_uniform": [0.03, 0.5]},
        "distillation.epsilon": ["auto", 0.0],
    }
)
