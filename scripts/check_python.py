"""Say in one line when this Python cannot run the project. Runs on any Python 3."""

import sys

LOWEST, TOO_NEW = (3, 11), (3, 14)  # kserve's own bounds are >=3.10,<3.14; transformers wants 3.11

if not LOWEST <= sys.version_info[:2] < TOO_NEW:
    sys.exit(
        "Python {}.{} to {}.{} is needed, this is {}.{}: name another with `make PYTHON=…`".format(
            *LOWEST, TOO_NEW[0], TOO_NEW[1] - 1, *sys.version_info[:2]
        )
    )
