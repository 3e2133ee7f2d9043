"""The four systems of the paper as tiny models: CIF, ACD, LRD and HKD."""

from tiny_bert import HIDDEN
from tiny_model import tiny_model

SYSTEMS = {
    "cif": {"criterion": None},
    "acd": {"criterion": "hkd", "linguistic": {"weight": 0.0}},
    "lrd": {"criterion": "hkd", "acoustic": {"weight": 0.0}},
    "hkd": {"criterion": "hkd"},
}


def model_of(system, bert, **criterion_conf):
    conf = dict(SYSTEMS[system])
    criterion = conf.pop("criterion")
    if criterion is None:
        return tiny_model()
    conf = {"teacher": bert, "teacher_dim": HIDDEN} | conf | criterion_conf
    return tiny_model(model_conf={"criterion": criterion, "criterion_conf": conf})
