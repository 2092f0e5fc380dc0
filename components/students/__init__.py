"""Small models that a teacher can teach, and the baselines that shame weak ones."""

from components.model import ModelSpec
from components.students import itemknn, lightgcn, markov, mostpop, sasrec

STUDENTS: dict[str, ModelSpec] = {
    "sasrec": ModelSpec(sasrec.SASRecConfig, sasrec.build),
    "mostpop": ModelSpec(mostpop.MostPopConfig, mostpop.build),
    "markov": ModelSpec(markov.MarkovConfig, markov.build),
    "lightgcn": ModelSpec(lightgcn.LightGCNConfig, lightgcn.build),
    "itemknn": ModelSpec(itemknn.ItemKNNConfig, itemknn.build),
}
