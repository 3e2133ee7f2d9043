"""The ablation: systems × seeds trained, collected, counted and told.

The scripts of this folder put ``benchmarks/`` on the path and import each other as
``ablation.cells`` and so on, so that no module of theirs hides one of others.
"""
