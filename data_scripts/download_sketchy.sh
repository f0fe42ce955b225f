#!/usr/bin/env bash
# Unpacks the processed Sketchy data to data/sketchy/processed/{train,valid,test}.
#
#   bash data_scripts/download_sketchy.sh ARCHIVE...
#
# ARCHIVE is the address of a published .zip or .tar archive, which is downloaded to data/downloads,
# or an archive downloaded already. The addresses are in the README of the PyTorch project
# object-discovery-pytorch, which publishes the data. The raw episodes (TFRecord files) need
# data_scripts/process_sketchy.py instead.

# shellcheck source=data_scripts/download.sh
source "$(dirname "$0")/download.sh"
[ $# -gt 0 ] || usage_error "Name at least one archive."

folder=$data/sketchy/processed
if ! { kept "$folder/train" && kept "$folder/valid" && kept "$folder/test"; }; then
    for source in "$@"; do
        get_archive "$source"
        unpack "$archive"
        move_into "$folder" train valid test
    done
fi
ready sketchy "$folder"
