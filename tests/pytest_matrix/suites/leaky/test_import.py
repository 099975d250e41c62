"""A module that leaks when it is imported."""

import os

LEAKS = os.environ.get("LEAKS", "").split()

if "import" in LEAKS:
    from test_leaks import leak

    leak()

if "import_c" in LEAKS:
    from test_leaks import in_c, leak

    leak(in_c)


def test_import():
    pass
