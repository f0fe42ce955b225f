#!/usr/bin/env bash
# Downloads a variant of MOVi to data/downloads/movi_VARIANT: training and validation files.
#
#   bash data_scripts/download_movi.sh VARIANT SIZE
#
# VARIANT is c, d or e, SIZE 128 or 256. It needs gsutil, or gcloud, of the Google Cloud SDK, and
# tens of GB. A broken download is resumed by the same command.
#
# The address could not be checked when this was written. If it fails, look it up on the project's
# page (https://github.com/google-research/kubric) and name the bucket's folder that has movi_VARIANT
# with BASE_URL=gs://....

# shellcheck source=data_scripts/download.sh
source "$(dirname "$0")/download.sh"
[ $# -eq 2 ] || usage_error "Name a variant and a size."
case $1 in c | d | e) ;; *) usage_error "There is no variant $1." ;; esac
case $2 in 128 | 256) ;; *) usage_error "There is no size $2." ;; esac

folder=$downloads/movi_$1
from=${BASE_URL:-gs://kubric-public/tfds}/movi_$1/$2x$2/1.0.0
mkdir -p "$folder"
for part in train validation; do
    files="$from/movi_$1-$part.tfrecord-*"
    if present gsutil; then
        gsutil -m cp -n "$files" "$folder"
    elif present gcloud; then
        gcloud storage cp --no-clobber "$files" "$folder"
    else
        die "Neither gsutil nor gcloud is installed. Install the Google Cloud SDK, or put $files into" \
            "$folder by other means."
    fi || die "$files could not be had. Check the network and run this again."
done
next_step "python data_scripts/convert_movi.py --variant $1 --size $2 --input $folder --output $data/movi_$1.h5"
