"""Small models that a teacher can teach, and the baselines that shame weak ones."""

from components.model import ModelSpec
from components.students import caser, gru4rec, markov, mostpop, nextitnet, sasrec

STUDENTS: dict[str, ModelSpec] = {
    "sasrec": ModelSpec(sasrec.SASRecConfig, sasrec.build),
    "gru4rec": ModelSpec(gru4rec.GRU4RecConfig, gru4rec.build),
    "nextitnet": ModelSpec(nextitnet.NextItNetConfig, nextitnet.build),
    "caser": ModelSpec(caser.CaserConfig, caser.build),
    "mostpop": ModelSpec(mostpop.MostPopConfig, mostpop.build),
    "markov": ModelSpec(markov.MarkovConfig, markov.build),
}
