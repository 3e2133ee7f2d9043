"""Short targets of CTC and their paths."""

import itertools

VOCAB = 4
SENTENCES = [[1, 2], [1, 1, 1], [3], [], [2, 2, 3], [1, 2, 3, 1, 2, 3, 1]]
FRAMES = [6, 5, 3, 2, 3, 6]  # too few for the last two


def collapsed(path):
    """The tokens that a path spells."""
    return [v for v, _ in itertools.groupby(path) if v != 0]
