"""The recipe engine: the stages of ESPnet's ``asr.sh`` on pip packages alone.

``python3 -m espnet_cif_hkd.recipe [options of asr.sh]`` runs stages 1 to 15 in the
working directory, with the folders and file formats of ``asr.sh``. So each of the two
can continue the work of the other. ``… recipe init NAME DIR`` copies a recipe from the
installed package.
"""
