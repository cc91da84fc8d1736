"""`python -m keras_sbp`."""

import sys

from keras_sbp.cli import main

sys.exit(main())
