"""FILE...: SHA-256 on one thread."""

import hashlib
import sys

for path in sys.argv[1:]:
    with open(path, "rb") as file:
        print(hashlib.file_digest(file, "sha256").hexdigest())
