"""Examples in the docstrings of the packages that need torch only."""

import doctest
import importlib
import pkgutil

import pytest

from espnet_cif_hkd import cif, losses

MODULES = [
    info.name
    for package in (cif, losses)
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_public_names_have_an_example_that_runs(name):
    module = importlib.import_module(name)
    finder = doctest.DocTestFinder(exclude_empty=False)
    tests = {test.name: test for test in finder.find(module, name)}
    public = [
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and getattr(value, "__module__", None) == name
        and (isinstance(value, type) or callable(value))
    ]
    assert [key for key in public if not tests[f"{name}.{key}"].examples] == []
    runner = doctest.DocTestRunner()
    for test in tests.values():
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
