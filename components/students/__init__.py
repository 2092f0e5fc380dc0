"""Small models that a teacher can teach, and the baselines that shame weak ones."""

from components.model import ModelSpec
from components.students import bert4rec, markov, mostpop, recguru, sasrec

STUDENTS: dict[str, ModelSpec] = {
    "sasrec": ModelSpec(sasrec.SASRecConfig, sasrec.build),
    "recguru": ModelSpec(recguru.RecGURUConfig, recguru.build),
    "mostpop": ModelSpec(mostpop.MostPopConfig, mostpop.build),
    "bert4rec": ModelSpec(bert4rec.BERT4RecConfig, bert4rec.build),
    "markov": ModelSpec(markov.MarkovConfig, markov.build),
}
