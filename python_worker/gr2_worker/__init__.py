"""GR2's tensor worker: token ids in, log-probabilities and gradients out. It knows nothing about recommendation."""

import sys
from pathlib import Path

__version__ = "0.1.0"

# protoc's Python output imports `gr2.v1` absolutely, so its root has to be on the path.
_GENERATED = str(Path(__file__).parent / "generated")
if _GENERATED not in sys.path:
    sys.path.insert(0, _GENERATED)
