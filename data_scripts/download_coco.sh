#!/usr/bin/env bash
# Downloads COCO 2017 to data/coco: images to train on (19 GB) and to test on (0.8 GB), annotations.
#
#   bash data_scripts/download_coco.sh TRUTH...
#
# TRUTH is instances (0.25 GB) or panoptic (0.8 GB). As much again is needed to unpack them. A broken
# download is resumed by the same command.
#
# The addresses could not be checked when this was written. If they fail, look them up on the
# project's page (https://cocodataset.org/#download) and name the server that has zips/val2017.zip
# with BASE_URL=URL, or put the archives into data/downloads.

# shellcheck source=data_scripts/download.sh
source "$(dirname "$0")/download.sh"
[ $# -gt 0 ] || usage_error "Name a truth."

for truth in "$@"; do
    case $truth in
    instances | panoptic) ;;
    *) usage_error "There is no truth $truth." ;;
    esac
done

server=${BASE_URL:-http://images.cocodataset.org}

# fetch ADDRESS NAME...: moves what has such a name in the archive there to data/coco.
fetch() {
    local archive=$downloads/coco_${1##*/} folder=$data/coco
    case $1 in annotations/*) folder=$data/coco/annotations ;; esac
    download "$server/$1" "$archive"
    unpack "$archive"
    shift
    move_into "$folder" "$@"
    echo "$archive may be deleted."
}

for part in val2017 train2017; do
    kept "$data/coco/$part" || fetch "zips/$part.zip" "$part"
done
for truth in "$@"; do
    case $truth in
    instances)
        kept "$data/coco/annotations/instances_val2017.json" ||
            fetch annotations/annotations_trainval2017.zip 'instances_*2017.json'
        ;;
    panoptic)
        if ! kept "$data/coco/annotations/panoptic_val2017"; then
            fetch annotations/panoptic_annotations_trainval2017.zip 'panoptic_*2017.*'
            for part in train2017 val2017; do # archives in the archive
                unpack "$data/coco/annotations/panoptic_$part.zip"
                move_into "$data/coco/annotations" "panoptic_$part"
                rm "$data/coco/annotations/panoptic_$part.zip"
            done
        fi
        ;;
    esac
done
ready coco "$data/coco"
