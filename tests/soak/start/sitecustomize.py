"""Python imports this first in a process whose PYTHONPATH names this folder."""

import os

from tests.soak import child

child.prepare(os.environ)
