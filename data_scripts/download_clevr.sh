#!/usr/bin/env bash
# Downloads CLEVR v1.0 (18 GB, and as much again unpacked) to data/CLEVR_v1.0.
#
#   bash data_scripts/download_clevr.sh
#
# A broken download is resumed by the same command. BASE_URL=URL names another server that has
# CLEVR_v1.0.zip.

# shellcheck source=data_scripts/download.sh
source "$(dirname "$0")/download.sh"
[ $# -eq 0 ] || usage_error "This takes no arguments, but $* was given."

if ! kept "$data/CLEVR_v1.0"; then
    archive=$downloads/CLEVR_v1.0.zip
    download "${BASE_URL:-https://dl.fbaipublicfiles.com/clevr}/CLEVR_v1.0.zip" "$archive"
    unpack "$archive"
    move_into "$data" CLEVR_v1.0
    echo "$archive may be deleted."
fi
ready clevr_v1 "$data/CLEVR_v1.0"
