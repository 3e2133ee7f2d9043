"""The ablation: trains systems × seeds, collects their results and reports them.

The scripts of this folder put ``benchmarks/`` on the path and import each other as
``ablation.cells`` and so on, so none of their modules hides another one.
"""
