"""The corpus: Kaldi folders that local/data.sh of the recipe in egs2 writes."""

from espnet_cif_hkd.recipe.espnet3.data import KaldiDataset as Dataset
from espnet_cif_hkd.recipe.espnet3.data import LocalData as DatasetBuilder

__all__ = ["Dataset", "DatasetBuilder"]
