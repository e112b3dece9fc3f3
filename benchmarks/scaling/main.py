"""Records strong and weak scaling of this machine; options of `hpc-train bench scaling` follow."""

import os
import sys
from pathlib import Path

from hpc_train.cli import main

RESULTS = os.path.relpath(Path(__file__).parent / "results")

if __name__ == "__main__":
    recorded = ["--ranks", "1,2,4", "--rounds", "5", "--out", RESULTS]
    sys.argv[1:] = ["bench", "scaling", *recorded, *sys.argv[1:]]
    main()
