#!/usr/bin/env bash
# Downloads Pascal VOC 2012 (2 GB, and as much again unpacked) to data/VOCdevkit/VOC2012.
#
#   bash data_scripts/download_voc.sh
#
# A broken download is resumed by the same command. trainaug.txt, the longer list of images to train
# on, is not in the archive: put it into ImageSets/Segmentation.
#
# The address could not be checked when this was written. If it fails, look it up on the project's
# page (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/) and name the folder that has
# VOCtrainval_11-May-2012.tar with BASE_URL=URL, or put the archive into data/downloads.

# shellcheck source=data_scripts/download.sh
source "$(dirname "$0")/download.sh"
[ $# -eq 0 ] || usage_error "This takes no arguments, but $* was given."

if ! kept "$data/VOCdevkit/VOC2012"; then
    archive=$downloads/VOCtrainval_11-May-2012.tar
    download "${BASE_URL:-http://host.robots.ox.ac.uk/pascal/VOC/voc2012}/${archive##*/}" "$archive"
    unpack "$archive"
    move_into "$data/VOCdevkit" VOC2012
    echo "$archive may be deleted."
fi
ready voc "$data/VOCdevkit/VOC2012"
