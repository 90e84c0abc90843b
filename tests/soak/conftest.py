"""Soak tests train in the same forked children as the integration tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
