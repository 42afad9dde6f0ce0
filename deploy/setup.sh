#!/usr/bin/env bash
# Prepares a Debian or Ubuntu machine for Godwit: packages, a CRIU that works
# on the running kernel and, for tests and the demo, container images.
#
# Safe to run again: what is already right is only checked. It starts no
# service and replaces no file of the distribution.
#
#   deploy/setup.sh              all of it, to build and test from this tree
#   deploy/setup.sh --host-only  run-time packages and CRIU, for a real host
#
# Environment:
#   GODWIT_LIB          where the CRIU bundle lives [/usr/local/lib/godwit]
#   GODWIT_SETUP_OUT    where images are written    [<repo>/target/setup/images]
#   GODWIT_CRIU_MIRROR  Debian mirror to take CRIU from, when the machine's own
#                       apt sources name none
#   GODWIT_CRIU_SUITE   suite to take CRIU from     [testing]
#
# Progress goes to stderr, the summary to stdout. Exit codes: 0 done, 1 failed,
# 2 wrong usage, 77 not root.

# shellcheck source-path=SCRIPTDIR
set -eEuo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
repo=$(dirname -- "$here")
# Absolute, for they end up in the binaries of the bundle and in the env file.
GODWIT_LIB=$(realpath -m -- "${GODWIT_LIB:-/usr/local/lib/godwit}")
GODWIT_SETUP_OUT=$(realpath -m -- "${GODWIT_SETUP_OUT:-$repo/target/setup/images}")
scratch=

# shellcheck source=setup/packages.sh
. "$here/setup/packages.sh"
# shellcheck source=setup/private_apt.sh
. "$here/setup/private_apt.sh"
# shellcheck source=setup/criu.sh
. "$here/setup/criu.sh"
# shellcheck source=setup/images.sh
. "$here/setup/images.sh"

log() { printf 'setup: %s\n' "$*" >&2; }

die() {
    printf 'setup: error: %s\n' "$1" >&2
    [ $# -lt 2 ] || printf 'setup: hint: %s\n' "$2" >&2
    exit 1
}

usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

require_root() {
    [ "$(id -u)" -ne 0 ] || return 0
    printf 'setup: this needs root: it installs packages and writes to %s\n' "$GODWIT_LIB" >&2
    printf 'setup: hint: run: sudo %s\n' "${BASH_SOURCE[0]}${*:+ $*}" >&2
    exit 77
}

require_apt() {
    [ -z "$(type -P apt-get)" ] || [ -z "$(type -P dpkg-query)" ] || return 0
    die "this is not a Debian or Ubuntu system: \`apt-get\` was not found" \
        "install iproute2, nftables, tar, libseccomp 2 and CRIU 4.2.1 or newer yourself"
}

# Two set-ups at once would build the same bundle twice and race for apt.
take_turn() {
    mkdir -p "$GODWIT_LIB"
    exec 9>"$GODWIT_LIB/.setup.lock"
    flock -n 9 && return 0
    log "another set-up is running, waiting for it"
    flock 9
}

# Everything temporary is below one directory, next to the bundle, so that one
# trap cleans up. 0755, since apt downloads as its own unprivileged user. What
# a killed run left goes first: we hold the lock, so nobody uses it.
make_scratch() {
    [ -z "$scratch" ] || return 0
    rm -rf -- "$GODWIT_LIB"/.scratch.*
    scratch=$(mktemp -d "$GODWIT_LIB/.scratch.XXXXXX")
    chmod 0755 "$scratch"
}

remove_scratch() { [ -z "$scratch" ] || rm -rf -- "$scratch"; }

# Files below target/ belong to whoever owns the tree, or their own
# `cargo clean` would fail after a run under sudo.
give_to_owner() { chown -R --reference="$repo" -- "$@"; }

write_env() {
    local file=${GODWIT_SETUP_OUT%/images}/env
    printf 'GODWIT_CRIU=%s\nGODWIT_IMAGES=%s\n' "$GODWIT_LIB/criu/bin/criu" "$GODWIT_SETUP_OUT" >"$file.new"
    mv -f -- "$file.new" "$file"
    give_to_owner "$file"
}

summarise() {
    local image
    printf 'criu    %s (%s)\n' "$GODWIT_LIB/criu/bin/criu" "$(criu_version "$GODWIT_LIB/criu/bin/criu")"
    for image in "$@"; do
        printf 'image   %s (%s)\n' "$image" "$(du -h -- "$image" | cut -f1)"
    done
    printf 'seconds %s\n' "$SECONDS"
}

main() {
    local host_only=
    case "${1-}" in
    '') ;;
    --host-only) host_only=1 ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
    esac

    require_root "$@"
    require_apt
    export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
    umask 022
    take_turn
    trap remove_scratch EXIT
    trap 'die "line $LINENO of ${BASH_SOURCE[0]}: \`$BASH_COMMAND\` failed"' ERR

    if [ -n "$host_only" ]; then
        ensure_packages "${runtime_packages[@]}"
        ensure_criu
        summarise
    else
        ensure_packages "${runtime_packages[@]}" "${build_packages[@]}" "${test_packages[@]}"
        stop_service docker-registry
        ensure_criu
        ensure_images
        write_env
        summarise "$GODWIT_SETUP_OUT/busybox.tar" "$GODWIT_SETUP_OUT/redis.tar"
    fi
}

main "$@"
