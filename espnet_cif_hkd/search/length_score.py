"""What decides between sentences of different lengths. Needs no torch."""


def length_score(score: float, n_tokens: int, bonus: float | None) -> float:
    """Return what decides between sentences of different lengths.

    Args:
        score: Sum of the log-probabilities of the tokens and of ``<eos>``.
        n_tokens: Without ``<eos>``.
        bonus: See :class:`espnet_cif_hkd.search.lengths.LengthSearch`.
    """
    if bonus is None:
        return score / (n_tokens + 1)
    return score + bonus * n_tokens
