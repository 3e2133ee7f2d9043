"""Commands: each module here runs with ``python3 -m``."""
