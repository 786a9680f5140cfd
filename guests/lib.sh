# Shared by the scripts of this room: the cache folder, its locks, messages. Sourced, never run.
# shellcheck shell=bash

tool=${0##*/}

# die MESSAGE: one line that says what is wrong and what to do.
die() {
  echo "$tool: $*" >&2
  exit 1
}

# progress MESSAGE: one line with the seconds since this script started.
progress() { echo "$tool: ${SECONDS} s: $*" >&2; }

# need COMMAND...: refuses to go on without these programs.
need() {
  local command
  for command in "$@"; do
    command -v "$command" >/dev/null || die "'$command' is missing; run scripts/install-deps"
  done
}

# cache_dir: the folder everything that is downloaded or built for guests is kept in.
cache_dir() {
  local dir=${SPLITVISOR_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set; set SPLITVISOR_CACHE}/.cache}/splitvisor}
  mkdir -p "$dir" || die "cannot create the cache folder $dir; set SPLITVISOR_CACHE to a writable folder"
  realpath "$dir"
}

# take_lock CACHE NAME: one builder of NAME at a time; held until this script ends.
take_lock() {
  mkdir -p "$1/locks"
  exec 9>"$1/locks/$2"
  if ! flock -n 9; then
    progress "waiting for another run that prepares $2"
    flock -w 1800 9 || die "another run has held $1/locks/$2 for 30 minutes; end it and try again"
  fi
}

# content_key FILE_OR_STRING...: a short hash of the named files' contents and the other arguments.
content_key() {
  local item
  for item in "$@"; do
    if [ -f "$item" ]; then cat "$item"; else printf '%s\n' "$item"; fi
  done | sha256sum | cut -c1-16
}

# scratch_dir CACHE NAME: a folder beside the cache's results, so that a rename into place is atomic.
# Sets $scratch and removes it when the script ends.
scratch_dir() {
  mkdir -p "$1/tmp"
  scratch=$(mktemp -d "$1/tmp/$2.XXXXXX")
  trap 'rm -rf "$scratch"' EXIT
}

# copy_modules KERNEL_DIR VERSION TREE MODULE...: copies the modules and all they need into TREE, unpacked.
# A module that this kernel has built in, or does not have, is left out.
copy_modules() {
  local kernel=$1 version=$2 tree=$3 file relative
  shift 3
  mkdir -p "$tree/lib/modules/$version"
  local module
  for module in "$@"; do
    modprobe -S "$version" -d "$kernel" --show-depends "$module" 2>/dev/null | awk '$1 == "insmod" {print $2}' || true
  done | sort -u | while read -r file; do
    relative=${file#"$kernel"/}
    mkdir -p "$tree/${relative%/*}"
    case $relative in
      *.xz) xz -dc "$file" >"$tree/${relative%.xz}" ;;
      *) cp "$file" "$tree/$relative" ;;
    esac
  done
  cp "$kernel/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} "$tree/lib/modules/$version/"
  depmod -b "$tree" "$version"
}

# pack_initramfs TREE FILE: a reproducible newc archive.
pack_initramfs() {
  find "$1" -exec touch -h -d @0 {} +
  (cd "$1" && find . -print0 | LC_ALL=C sort -z | cpio --null -o -H newc --reproducible --quiet -R 0:0) |
    zstd -q -3 -f -o "$2"
}
