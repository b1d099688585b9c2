#!/bin/sh
# Installs the MediScan server into a virtual environment of its own. The image is built by it, and so can a machine be.
#
#   SOURCE   checkout                        [the one that holds this file]
#   PREFIX   where the environment goes      [/opt/mediscan]
#   EXTRAS   optional parts                  [server,postgresql,dicom]
#   PYTHON   interpreter                     [python3]
set -eu
SOURCE=${SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
PREFIX=${PREFIX:-/opt/mediscan}
"${PYTHON:-python3}" -m venv "$PREFIX"
"$PREFIX/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check \
  --constraint "$SOURCE/.ci/constraints.txt" "$SOURCE[${EXTRAS:-server,postgresql,dicom}]"
