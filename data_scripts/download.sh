# What the download_*.sh scripts share; each sources this file. Linux and macOS, bash 3.2 or newer.
#
# A file is downloaded as NAME.part, which a later call resumes, and takes its name when it is
# whole. An archive is unpacked in a hidden folder, and what is wanted is moved out when all of it
# has been unpacked without an error. Nothing that is there already is replaced.
# shellcheck shell=bash
set -euo pipefail

# Lines as sha256sum prints them, "HEX  NAME". No publisher's checksum is confirmed so far.
known_sha256sums=

data=${DATA_DIR:-data}
downloads=$data/downloads
BASE_URL=${BASE_URL:-}
BASE_URL=${BASE_URL%/}

die() {
    echo "error: $*" >&2
    exit 1
}

# usage: prints the comment at the top of the script.
usage() {
    awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
    echo
    echo "Environment: DATA_DIR, the folder for everything (default: data). SHA256SUMS, a file with"
    echo "lines \"HEX  NAME\" as sha256sum prints them: downloads must match."
}

# usage_error MESSAGE
usage_error() {
    {
        echo "error: $*"
        echo
        usage
    } >&2
    exit 2
}

for argument in "$@"; do
    case $argument in
    -h | --help)
        usage
        exit 0
        ;;
    -*) usage_error "There is no option $argument." ;;
    esac
done

[ -z "${SHA256SUMS:-}" ] || [ -r "$SHA256SUMS" ] ||
    die "There is no readable list of checksums $SHA256SUMS. Name one with SHA256SUMS=FILE."

present() {
    command -v "$1" >/dev/null 2>&1
}

# kept PATH: whether it exists; says so.
kept() {
    [ -e "$1" ] && echo "$1 is there already and is left as it is."
}

# next_step COMMAND...
next_step() {
    echo "next    $*"
}

# ready NAME PATH: what to do when data set NAME can be read.
ready() {
    next_step "objdisc train --config CONFIG.py --config.data.path=$2" \
        "(with a config whose data set is $1)"
}

# size_of FILE: bytes; 0 if there is none.
size_of() {
    if [ -f "$1" ]; then echo $(($(wc -c <"$1"))); else echo 0; fi
}

# readable BYTES
readable() {
    awk -v bytes="$1" 'BEGIN {
        n = split("bytes kB MB GB TB", unit)
        for (i = 1; bytes >= 1000 && i < n; i++) bytes /= 1000
        printf(i == 1 ? "%d %s" : "%.1f %s", bytes, unit[i])
    }'
}

# check_space FOLDER BYTES WHAT
check_space() {
    local free
    free=$(df -Pk "$1" | awk 'NR == 2 { for (i = 2; i <= NF; i++) if ($i ~ /^[0-9]+%$/) print $(i - 1) }')
    [ -n "$free" ] || return 0
    free=$((free * 1024))
    [ "$free" -ge "$2" ] ||
        die "$3 needs $(readable "$2"), but $1 has only $(readable "$free") free." \
            "Free some space, or name a folder on another disk with DATA_DIR=FOLDER."
}

# check_sum FILE NAME: compares with the checksum known under NAME, if there is one.
check_sum() {
    local listed=$known_sha256sums expected found
    if [ -n "${SHA256SUMS:-}" ]; then
        listed=$(cat "$SHA256SUMS")
    fi
    expected=$(awk -v name="$2" '$2 == name || $2 == "*" name { print tolower($1) }' <<<"$listed")
    if [ -z "$expected" ]; then
        [ -z "${SHA256SUMS:-}" ] || die "$SHA256SUMS has no line for $2. Add \"HEX  $2\" to it."
        return 0
    fi
    if present sha256sum; then found=$(sha256sum "$1"); else found=$(shasum -a 256 "$1"); fi
    found=${found#\\} # before names with special characters
    [ "${found%% *}" = "$expected" ] ||
        die "$1 has the SHA-256 ${found%% *}, but $expected is expected. If that is what" \
            "the publisher states, delete $1 and run this again."
}

# first_bytes FILE: four of them, in hexadecimal.
first_bytes() {
    head -c 4 "$1" | od -An -tx1 | tr -d ' \n'
}

# check_kind FILE NAME: whether the content begins as the ending of NAME promises.
check_kind() {
    case $2:$(first_bytes "$1") in
    *.zip:504b* | *.gz:1f8b* | *.tgz:1f8b* | *.tfrecords:1f8b* | *.h5:89484446) ;;
    *.zip:* | *.gz:* | *.tgz:* | *.tfrecords:* | *.h5:*) return 1 ;;
    esac
}

# remote_size URL: bytes, or nothing if the server does not say.
remote_size() {
    {
        if present curl; then
            curl --silent --head --location --connect-timeout 30 "$1"
        else
            wget --spider --server-response --tries=1 --timeout=30 "$1" 2>&1
        fi
    } | tr -d '\r' | awk '
        $1 ~ /^HTTP\// { ok = $2 == 200; size = "" }
        tolower($1) == "content-length:" { size = $2 }
        END { if (ok) print size }' || true
}

# transfer URL FILE: downloads what FILE lacks.
transfer() {
    local status=0 quiet=""
    [ -t 2 ] || quiet=yes
    if present curl; then
        curl --fail --location --show-error ${quiet:+--silent} --connect-timeout 30 \
            --speed-limit 1 --speed-time 60 --continue-at - --output "$2" "$1" || status=$?
        if [ $status -eq 33 ]; then
            echo "The server cannot resume; starting again from the beginning."
            rm -f "$2"
            transfer "$1" "$2"
            return
        fi
    else
        wget ${quiet:+--no-verbose} --tries=1 --timeout=60 --continue -O "$2" "$1" || status=$?
        [ $status -eq 3 ] || [ $status -eq 0 ] || status=$((status == 8 ? 22 : 7))
        [ -s "$2" ] || rm -f "$2"
    fi
    case $status in
    0) ;;
    22)
        die "The server has no file at $1, or does not hand it out. Look for its present address" \
            "on the data set's page."
        ;;
    3 | 23) die "$2 could not be written. See to the permissions and the space on the disk." ;;
    *)
        die "$1 could not be reached, or the connection broke. Check the network and run this" \
            "again: it goes on where it stopped. Or download the file elsewhere and put it at ${2%.part}."
        ;;
    esac
}

# download URL FILE
download() {
    local url=$1 file=$2 part=$2.part size have
    if kept "$file"; then
        [ -z "${SHA256SUMS:-}" ] || check_sum "$file" "${file##*/}"
        return 0
    fi
    present curl || present wget || die "Neither curl nor wget is installed. Install one of them."
    mkdir -p "$(dirname "$file")"
    size=$(remote_size "$url")
    have=$(size_of "$part")
    if [ -n "$size" ] && [ "$have" -gt "$size" ]; then
        rm "$part" # of another file
        have=0
    fi
    if [ "$have" != "$size" ]; then
        [ -z "$size" ] || check_space "$(dirname "$file")" $((size - have)) "$url"
        echo "$url -> $file${size:+ ($(readable "$size"))}"
        transfer "$url" "$part"
        have=$(size_of "$part")
        [ -z "$size" ] || [ "$have" = "$size" ] ||
            die "$part has $have bytes, but the server's file $size. Run this again."
    fi
    if ! check_kind "$part" "$file"; then
        rm -f "$part"
        die "$url is no *.${file##*.} file: the server sent something else, perhaps a page that asks to" \
            "log in. Open the address in a browser."
    fi
    check_sum "$part" "${file##*/}"
    mv "$part" "$file"
}

# get_archive URL_OR_FILE: sets `archive` to the file, downloaded if need be.
get_archive() {
    local name=${1%%[?#]*}
    name=${name##*/}
    case $1 in
    http://* | https://*)
        case $name in
        *.zip | *.tar | *.tar.* | *.tgz) ;;
        *)
            die "$1 does not end in the name of a .zip or .tar archive. Download it by other means" \
                "and name the file instead."
            ;;
        esac
        archive=$downloads/$name
        download "$1" "$archive"
        ;;
    *)
        archive=$1
        [ -f "$archive" ] || die "There is no file $archive. Name an archive or its http(s) address."
        check_sum "$archive" "$name"
        ;;
    esac
}

# unpack ARCHIVE: sets `unpacked` to a new folder with its content.
unpack() {
    local reader=tar
    unpacked=$data/.unpacking-${1##*/}
    trap 'rm -rf "$unpacked"' EXIT
    rm -rf "$unpacked"
    mkdir -p "$unpacked"
    check_space "$data" "$(size_of "$1")" "Unpacking $1"
    case $(first_bytes "$1") in 504b*) reader=unzip ;; esac
    present $reader || die "$1 needs the program $reader. Install it."
    echo "unpacking $1"
    if [ $reader = unzip ]; then
        unzip -q -o "$1" -d "$unpacked" || [ $? -eq 1 ] # a warning
    else
        tar -xof "$1" -C "$unpacked"
    fi || die "$1 could not be unpacked: it is incomplete, damaged or no archive, or there is no space" \
        "left. If it is damaged, delete it and get it again."
}

# move_into FOLDER NAME...: moves what has such a name out of the unpacked archive.
move_into() {
    local folder=$1 name path found=""
    shift
    mkdir -p "$folder"
    for name in "$@"; do
        while IFS= read -r path; do
            found=yes
            kept "$folder/${path##*/}" || mv "$path" "$folder/"
        done < <(find "$unpacked" -mindepth 1 -name "$name" -prune)
    done
    [ -n "$found" ] || die "The archive has nothing named $*: is it the right one?"
    rm -rf "$unpacked"
}
