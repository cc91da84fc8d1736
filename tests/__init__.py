"""Tests; what they need of the environment stands before the import of Keras."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: with threads for every core, each would wait for the others.
    for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
