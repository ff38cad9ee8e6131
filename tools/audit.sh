#!/bin/sh
# Audits what users install with wio, extras included: that each file is the one whose hash requirements/runtime.lock
# has, that these are all that pyproject.toml asks for, and, where the database answers, that no vulnerability of them
# is known. usage: audit.sh, with PYTHON, and AUDIT: an environment with requirements/audit.txt
set -eu

lock=requirements/runtime.lock
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$PYTHON" -m venv "$folder/env"
python="$folder/env/bin/python"
pip="$python -m pip --disable-pip-version-check --quiet"

$pip install --require-hashes --only-binary :all: -r "$lock"
extras=$("$python" -c '
import tomllib
with open("pyproject.toml", "rb") as file:
    extras = tomllib.load(file)["project"]["optional-dependencies"]
print(",".join(sorted(extras)))')
$pip wheel --no-deps --wheel-dir "$folder" .
$pip install --no-index "$(ls "$folder"/wio-*.whl)[$extras]" || {
  echo "$lock lacks what pyproject.toml asks for (make lock)" >&2
  exit 1
}
echo "audit: $(grep -c '^[a-z0-9].*==' "$lock") packages are those of $lock by their hashes, and all that wio[$extras] needs"

# A database that cannot be reached reports nothing, as one does that knows of nothing. So it is asked first about a
# release that it must know (CVE-2018-18074).
echo "requests==2.19.0" >"$folder/known.txt"
"$AUDIT/bin/pip-audit" --disable-pip --no-deps -r "$folder/known.txt" --format json >"$folder/known.json" 2>/dev/null || true
if grep -q '"CVE-2018-18074"' "$folder/known.json"; then
  "$AUDIT/bin/pip-audit" --disable-pip --require-hashes --strict -r "$lock"
  echo "audit: pip-audit knows of no vulnerability in them"
else
  echo "audit: NOT ASKED FOR KNOWN VULNERABILITIES: pip-audit's database cannot be reached from here; hashes only" >&2
fi
