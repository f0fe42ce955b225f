#!/usr/bin/env bash
# Downloads variants of ClevrTex to data/clevrtex.
#
#   bash data_scripts/download_clevrtex.sh VARIANT...
#
# VARIANT is full (five archives of 4.7 GB), pbg, vbg, grassbg, camo or outd (5.3 GB); as much again
# is needed to unpack them. A broken download is resumed by the same command.
#
# The addresses could not be checked when this was written. If they fail, look them up on the
# project's page (https://www.robots.ox.ac.uk/~vgg/data/clevrtex/) and name the folder that has
# clevrtex_VARIANT.tar.gz and clevrtex_full_part1.tar.gz to clevrtex_full_part5.tar.gz with
# BASE_URL=URL, or put the archives into data/downloads.

# shellcheck source=data_scripts/download.sh
source "$(dirname "$0")/download.sh"
[ $# -gt 0 ] || usage_error "Name at least one variant."

for variant in "$@"; do
    case $variant in
    full | pbg | vbg | grassbg | camo | outd) ;;
    *) usage_error "There is no variant $variant." ;;
    esac
done

for variant in "$@"; do
    parts=clevrtex_$variant
    [ "$variant" != full ] || parts=$(echo clevrtex_full_part{1,2,3,4,5})
    for part in $parts; do
        folder=$data/clevrtex/$part
        if ! kept "$folder"; then
            archive=$downloads/$part.tar.gz
            download "${BASE_URL:-https://thor.robots.ox.ac.uk/~vgg/data/clevrtex}/$part.tar.gz" "$archive"
            unpack "$archive"
            [ -n "$(find "$unpacked" -name "CLEVRTEX_${variant}_*.png" | head -n 1)" ] ||
                die "$archive has no images of ClevrTex $variant: is it the right archive?"
            mkdir -p "$data/clevrtex"
            mv "$unpacked" "$folder"
            echo "$archive may be deleted."
        fi
    done
done
ready clevrtex "$data/clevrtex"
