#!/bin/sh
# Make an object folder from photos of one object: bash prepare.sh photos --out my/object
# Boxes and silhouettes are proposed; run it again after correcting them, or with more photos.
set -eu
root=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
. "$root/setup.sh"
exec python "$root/scripts/prepare.py" "$@"
