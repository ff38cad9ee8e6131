#!/bin/sh
# Builds the wheel, holds its files against the checkout's (a sub-package left off pyproject's list is missing only
# there), installs it alone in an empty environment, and from outside imports every module, runs the command and checks
# the types.
set -eu

checkout=$PWD
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$PYTHON" -m venv "$folder/env"
python="$folder/env/bin/python"
"$python" -m pip --disable-pip-version-check --quiet wheel --no-deps --wheel-dir "$folder" .
"$python" - "$checkout" "$folder"/wio-*.whl <<'PY'
import sys, zipfile
from pathlib import Path
checkout = Path(sys.argv[1])
wanted = {
    ("" if part == "wio" else "wio/") + path.relative_to(checkout).as_posix()
    for part in ("wio", "adapters", "registry")
    for path in (checkout / part).rglob("*")
    if path.is_file() and path.suffix != ".pyc"
}
assert wanted, "the checkout is empty"
packed = {name for name in zipfile.ZipFile(sys.argv[2]).namelist() if name.startswith("wio/")}
assert not wanted - packed, f"not in the wheel: {', '.join(sorted(wanted - packed))}"
# What an older build left in build/ is packed too.
assert not packed - wanted, f"not in the checkout: {', '.join(sorted(packed - wanted))}"
PY
"$python" -m pip --disable-pip-version-check --quiet install "$folder"/wio-*.whl
cd "$folder"
"$python" - <<'PY'
import importlib, pkgutil, sys
import wio
names = [module.name for module in pkgutil.walk_packages(wio.__path__, "wio.")]
for name in names:
    if name not in ("wio.__main__", "wio.testing"):
        importlib.import_module(name)
frameworks = {"tensorflow", "keras", "torch", "onnx", "onnxruntime", "theano"} & set(sys.modules)
assert not frameworks, f"importing wio imported {frameworks}"
from wio.plugins import architectures, found_adapters, habits
assert all(each.adapter for each in found_adapters()) and "inception-v4" in architectures() and "tf-slim" in habits()
print(f"{len(names)} modules import, {len(found_adapters())} adapters, {len(architectures())} architecture")
PY
"$folder/env/bin/wio" --help >/dev/null
test -s "$folder/env/share/man/man1/wio.1" || { echo "the man page is not in the wheel"; exit 1; }
# wio.testing needs its extra, and the types are checked with it.
"$python" -m pip --disable-pip-version-check --quiet install "$(ls "$folder"/wio-*.whl)[testing]" \
  "$(grep '^mypy==' "$checkout/requirements/test.txt")"
"$python" -m mypy --config-file "$checkout/pyproject.toml" -p wio
echo "the wheel stands alone"
