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
from components.students.heads import learnt_items

STUDENTS: dict[str, ModelSpec] = {
    # sequences
    "sasrec": ModelSpec(sasrec.SASRecConfig, sasrec.build, item_embedding=learnt_items),
    "gru4rec": ModelSpec(gru4rec.GRU4RecConfig, gru4rec.build, item_embedding=learnt_items),
    "nextitnet": ModelSpec(nextitnet.NextItNetConfig, nextitnet.build, item_embedding=learnt_items),
    "caser": ModelSpec(caser.CaserConfig, caser.build, item_embedding=learnt_items),
    "bert4rec": ModelSpec(bert4rec.BERT4RecConfig, bert4rec.build, item_embedding=bert4rec.learnt_items),
    "recguru": ModelSpec(recguru.RecGURUConfig, recguru.build, item_embedding=learnt_items),
    # features and graphs; items made of fields have no vectors of their own
    "fm": ModelSpec(fm.FMConfig, fm.build, reads_attributes=True),
    "deepfm": ModelSpec(deepfm.DeepFMConfig, deepfm.build, reads_attributes=True),
    "lightgcn": ModelSpec(lightgcn.LightGCNConfig, lightgcn.build, item_embedding=learnt_items),
    # baselines that count
    "mostpop": ModelSpec(mostpop.MostPopConfig, mostpop.build),
    "markov": ModelSpec(markov.MarkovConfig, markov.build),
    "itemknn": ModelSpec(itemknn.ItemKNNConfig, itemknn.build),
}
