"""What a test leaves in the root logger does not reach the next one."""

import logging

import pytest


@pytest.mark.parametrize("time", ["first", "second"])
def test_level_and_handlers_of_the_root_logger_are_restored(time):
    root = logging.getLogger()
    assert root.level == logging.WARNING, time
    assert not [each for each in root.handlers if isinstance(each, _Handler)], time
    root.setLevel(logging.INFO)
    root.addHandler(_Handler())


class _Handler(logging.NullHandler):
    pass
