"""A module that leaks when it is imported."""

import os

if "import" in os.environ.get("LEAKS", "").split():
    from test_leaks import leak

    leak()


def test_import():
    pass
