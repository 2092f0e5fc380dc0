"""Small models that a teacher can teach, and the baselines that shame weak ones."""

from components.model import ModelSpec
from components.students import deepfm, fm, markov, mostpop, sasrec

STUDENTS: dict[str, ModelSpec] = {
    "sasrec": ModelSpec(sasrec.SASRecConfig, sasrec.build),
    "fm": ModelSpec(fm.FMConfig, fm.build, reads_attributes=True),
    "deepfm": ModelSpec(deepfm.DeepFMConfig, deepfm.build, reads_attributes=True),
    "mostpop": ModelSpec(mostpop.MostPopConfig, mostpop.build),
    "markov": ModelSpec(markov.MarkovConfig, markov.build),
}
