#!/usr/bin/env bash
# Downloads 3D Shapes (255 MB) to data/3dshapes.h5.
#
#   bash data_scripts/download_shapes3d.sh
#
# A broken download is resumed by the same command. BASE_URL=URL names another server that has
# 3dshapes.h5.

# shellcheck source=data_scripts/download.sh
source "$(dirname "$0")/download.sh"
[ $# -eq 0 ] || usage_error "This takes no arguments, but $* was given."

download "${BASE_URL:-https://storage.googleapis.com/3d-shapes}/3dshapes.h5" "$data/3dshapes.h5"
ready shapes3d "$data/3dshapes.h5"
