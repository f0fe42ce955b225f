#!/usr/bin/env bash
# Unpacks the RAVENS robot data to data/ravens/ravens_*_train.h5 and data/ravens/ravens_*_test.h5.
#
#   bash data_scripts/download_ravens.sh ARCHIVE...
#
# ARCHIVE is the address of a published .zip or .tar archive, which is downloaded to data/downloads,
# or an archive downloaded already. The addresses are in the README of the PyTorch project
# object-discovery-pytorch, which publishes the data. Files that are published without an archive
# go into data/ravens as they are.

# shellcheck source=data_scripts/download.sh
source "$(dirname "$0")/download.sh"
[ $# -gt 0 ] || usage_error "Name at least one archive."

folder=$data/ravens
if ! { kept "$folder"/ravens_*_train.h5 && kept "$folder"/ravens_*_test.h5; }; then
    for source in "$@"; do
        get_archive "$source"
        unpack "$archive"
        move_into "$folder" 'ravens_*_train.h5' 'ravens_*_test.h5'
    done
fi
ready ravens "$folder"
