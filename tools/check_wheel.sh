#!/bin/sh
# Builds the wheel, installs it alone in an empty environment, and from outside the checkout imports every module,
# runs the command and checks the types: a sub-package left off pyproject's list is missing only there.
set -eu

checkout=$PWD
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$PYTHON" -m venv "$folder/env"
python="$folder/env/bin/python"
"$python" -m pip --disable-pip-version-check --quiet wheel --no-deps --wheel-dir "$folder" .
"$python" -m pip --disable-pip-version-check --quiet install "$folder"/wio-*.whl
cd "$folder"
"$python" - <<'PY'
import importlib, pkgutil, sys
import wio
names = [module.name for module in pkgutil.walk_packages(wio.__path__, "wio.")]
for package in ("wio.adapters.keras_hdf5", "wio.adapters.tf_checkpoint", "wio.registry", "wio.cli.export"):
    assert package in names, f"{package} is not in the wheel"
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
