"""Our token loss and ESPnet's label smoothing against the paper's formula."""

from pathlib import Path

import numpy as np
import torch

from espnet_cif_hkd.losses.token import score_tokens
from espnet_cif_hkd.plugin.compat import LabelSmoothingLoss

DATA = Path(__file__).parents[1] / "data"


def test_label_smoothing_reference_vectors():
    """Values as in the reference; all three have the same gradient."""
    ref = np.load(DATA / "label_smoothing.npz")
    target = torch.from_numpy(ref["target"])
    epsilon = float(ref["epsilon"])
    batch, _, n_classes = ref["logits"].shape
    logits = torch.from_numpy(ref["logits"]).requires_grad_()
    log_probs = logits.log_softmax(-1)
    nll = -log_probs.gather(-1, target.clamp_min(0)[..., None])[..., 0]
    smooth = -log_probs.sum(-1)
    epsilon_i = epsilon / (n_classes - 1)
    valid = target >= 0
    loss = ((1 - epsilon - epsilon_i) * nll + epsilon_i * smooth)[valid].sum()
    assert abs(float(loss.detach()) - float(ref["loss_sum"])) <= 1e-10
    assert abs(float(nll[valid].detach().sum()) - float(ref["nll_sum"])) <= 1e-10
    (expected,) = torch.autograd.grad(loss, logits)

    espnet = LabelSmoothingLoss(n_classes, -1, epsilon)
    # The class divides by the batch size; its value differs by a constant.
    (grad,) = torch.autograd.grad(espnet(logits, target) * batch, logits)
    assert (grad - expected).abs().max() <= 1e-10

    scores = score_tokens(logits, target, -1, epsilon)
    # Ours subtracts the entropy of the smoothed targets, a constant, as ESPnet does.
    entropy = -(1 - epsilon) * np.log(1 - epsilon) - epsilon * np.log(epsilon_i)
    constant = entropy * int(valid.sum())
    assert abs(float(scores.loss.detach()) + constant - float(ref["loss_sum"])) <= 1e-10
    assert abs(float(scores.nll) - float(ref["nll_sum"])) <= 1e-10
    (grad,) = torch.autograd.grad(scores.loss, logits)
    assert (grad - expected).abs().max() <= 1e-10
