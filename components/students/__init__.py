"""Small models that a teacher can teach, and the baselines that shame weak ones."""

from components.model import ModelSpec
from components.students import (
    bert4rec,
    caser,
    deepfm,
    fm,
    gru4rec,
    itemknn,
    lightgcn,
    markov,
    mostpop,
    nextitnet,
    recguru,
    sasrec,
)

STUDENTS: dict[str, ModelSpec] = {
    # sequences
    "sasrec": ModelSpec(sasrec.SASRecConfig, sasrec.build),
    "gru4rec": ModelSpec(gru4rec.GRU4RecConfig, gru4rec.build),
    "nextitnet": ModelSpec(nextitnet.NextItNetConfig, nextitnet.build),
    "caser": ModelSpec(caser.CaserConfig, caser.build),
    "bert4rec": ModelSpec(bert4rec.BERT4RecConfig, bert4rec.build),
    "recguru": ModelSpec(recguru.RecGURUConfig, recguru.build),
    # features and graphs
    "fm": ModelSpec(fm.FMConfig, fm.build, reads_attributes=True),
    "deepfm": ModelSpec(deepfm.DeepFMConfig, deepfm.build, reads_attributes=True),
    "lightgcn": ModelSpec(lightgcn.LightGCNConfig, lightgcn.build),
    # baselines that count
    "mostpop": ModelSpec(mostpop.MostPopConfig, mostpop.build),
    "markov": ModelSpec(markov.MarkovConfig, markov.build),
    "itemknn": ModelSpec(itemknn.ItemKNNConfig, itemknn.build),
}
