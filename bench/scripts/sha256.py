"""FILE...: SHA-256 on one thread."""

import hashlib
import sys
from pathlib import Path

for path in sys.argv[1:]:
    with Path(path).open("rb") as file:
        print(hashlib.file_digest(file, "sha256").hexdigest())
