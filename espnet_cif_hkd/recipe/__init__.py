"""The recipe engine: the stages of ESPnet's ``asr.sh`` on pip packages alone.

``python3 -m espnet_cif_hkd.recipe [options of asr.sh]`` runs stages 1 to 14 in the
working directory, with the folders and file formats of ``asr.sh``, so that a run
begun with one can be finished with the other. ``… recipe init NAME DIR`` lays a
recipe out from the installed package.
"""
