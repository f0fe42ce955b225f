#!/usr/bin/env bash
# Downloads files of DeepMind's Multi-Object Datasets to data/downloads.
#
#   bash data_scripts/download_multi_object.sh NAME...
#
# NAME is one of
#
#   clevr_with_masks                       10.5 GB
#   tetrominoes                            0.3 GB
#   multi_dsprites_binarized               0.5 to 1 GB, as the next two
#   multi_dsprites_colored_on_grayscale
#   multi_dsprites_colored_on_colored
#   objects_room_train                     7 GB
#   objects_room_empty_room                test files, 6 to 8 MB
#   objects_room_six_objects
#   objects_room_identical_color
#
# A broken download is resumed by the same command. BASE_URL=URL names another server with the same
# folders. The files have to be converted: the commands are printed at the end.

# shellcheck source=data_scripts/download.sh
source "$(dirname "$0")/download.sh"
[ $# -gt 0 ] || usage_error "Name at least one file."

# remote_path NAME: the place of its file on the server.
remote_path() {
    case $1 in
    clevr_with_masks | tetrominoes) echo "$1/$1_train.tfrecords" ;;
    multi_dsprites_binarized | multi_dsprites_colored_on_grayscale | multi_dsprites_colored_on_colored)
        echo "multi_dsprites/$1.tfrecords"
        ;;
    objects_room_train) echo "objects_room/$1.tfrecords" ;;
    objects_room_empty_room | objects_room_six_objects | objects_room_identical_color)
        echo "objects_room/objects_room_test_${1#objects_room_}.tfrecords"
        ;;
    *) return 1 ;;
    esac
}

for name in "$@"; do
    remote_path "$name" >/dev/null || usage_error "There is no file named $name."
done
for name in "$@"; do
    path=$(remote_path "$name")
    download "${BASE_URL:-https://storage.googleapis.com/multi-object-datasets}/$path" "$downloads/${path##*/}"
done
for name in "$@"; do
    path=$(remote_path "$name")
    case $name in
    multi_dsprites_*) dataset="multi_dsprites --variant ${name#multi_dsprites_}" ;;
    objects_room_*) dataset="objects_room --variant ${name#objects_room_}" ;;
    *) dataset=$name ;;
    esac
    next_step "python data_scripts/convert_tfrecords.py --dataset $dataset" \
        "--input $downloads/${path##*/} --output $data/$name.h5"
done
