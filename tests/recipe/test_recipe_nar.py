"""The recipe's checks know the one-pass decoder."""

from argparse import Namespace
from types import SimpleNamespace

import pytest

from espnet_cif_hkd.errors import UserError
from espnet_cif_hkd.recipe.checks.config import _check_model

RUN = SimpleNamespace(stock=False, options=SimpleNamespace(pretrained_model=""))


def arguments(model, decoder):
    conf = {"ctc_weight": 0.5}
    return Namespace(model=model, decoder=decoder, model_conf=conf, joint_net_conf=None)


@pytest.mark.parametrize("decoder", ["cif", "cif_nar"])
def test_model_cif_has_two_decoders(decoder):
    _check_model(arguments("cif", decoder), RUN)
    with pytest.raises(UserError, match="cif works only with cif"):
        _check_model(arguments("espnet", decoder), RUN)
    with pytest.raises(UserError, match="cif works only with cif"):
        _check_model(arguments("cif", "transformer"), RUN)
