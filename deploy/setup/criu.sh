# A CRIU that works on the running kernel, at $GODWIT_LIB/criu/bin/criu.
# Sourced by setup.sh.
#
# The system's own is taken when it passes `criu check`. Else a newer one is
# built beside the system from packages of a newer suite, with all libraries it
# needs, the C library and the dynamic loader included:
#
#   $GODWIT_LIB/criu          -> criu-XXXXXX, switched by one rename
#   $GODWIT_LIB/criu-XXXXXX/  the unpacked packages; rpath and interpreter in
#                             the binary name this directory by absolute path
# shellcheck shell=bash disable=SC2154 # $scratch is setup.sh's

criu_version() {
    "$1" --version 2>/dev/null | awk '/^Version:/ { print $2; exit }'
}

criu_works() { [ -x "$1" ] && "$1" check >/dev/null 2>&1; }

# Why the check failed, in CRIU's own words, on one line.
criu_complaint() {
    local said
    said=$("$1" check 2>&1 | grep Error | head -n1) || true
    printf '%s' "${said:-its check failed}"
}

ensure_criu() {
    local criu=$GODWIT_LIB/criu/bin/criu system
    if criu_works "$criu"; then
        log "CRIU $(criu_version "$criu") is in place"
        return 0
    fi
    if system=$(command -v criu) && criu_works "$system"; then
        log "using the system's CRIU $(criu_version "$system")"
        link_system_criu "$system"
    else
        [ -z "$system" ] || log "the system's CRIU $(criu_version "$system") does not work on Linux $(uname -r)"
        ensure_packages patchelf
        build_criu_bundle
    fi
}

link_system_criu() {
    local dir
    dir=$(mktemp -d "$GODWIT_LIB/criu-XXXXXX")
    chmod 0755 "$dir"
    mkdir "$dir/bin"
    ln -s "$1" "$dir/bin/criu"
    switch_criu "$dir"
}

build_criu_bundle() {
    local mirror keyring mirrors criu refusals=''
    if [ -n "${GODWIT_CRIU_MIRROR-}" ]; then
        mirrors=$GODWIT_CRIU_MIRROR
    else
        mirrors=$(debian_mirrors | debian_mirror_candidates)
    fi
    [ -n "$mirrors" ] || die "the apt sources of this machine name no Debian archive to take CRIU from" \
        "set GODWIT_CRIU_MIRROR to the URL of one, or install CRIU 4.2.1 or newer so that \`criu check\` passes"

    make_scratch
    while read -r mirror keyring <&3; do
        log "fetching CRIU from ${GODWIT_CRIU_SUITE:-testing}"
        bundle=$(mktemp -d "$GODWIT_LIB/criu-XXXXXX")
        chmod 0755 "$bundle"
        if fetch_criu_packages "$mirror" "$keyring" && relocate_criu "$bundle"; then
            criu=$bundle/bin/criu
            if criu_works "$criu"; then
                log "CRIU $(criu_version "$criu") passes its check on Linux $(uname -r)"
                switch_criu "$bundle"
                return 0
            fi
            refusals+="CRIU $(criu_version "$criu") does not work on Linux $(uname -r): $(criu_complaint "$criu")"$'\n'
        else
            refusals+="$mirror does not serve it"$'\n'
        fi
        rm -rf -- "$bundle" "$scratch/criu-apt"
    done 3<<<"$mirrors"

    printf '%s' "$refusals" | sed 's/^/setup: /' >&2
    die "no working CRIU for Linux $(uname -r) was found" \
        "Linux 6.16 and newer need CRIU 4.2.1: set GODWIT_CRIU_MIRROR to a Debian archive that has it (GODWIT_CRIU_SUITE names the suite), or install one so that \`criu check\` passes"
}

# fetch_criu_packages MIRROR KEYRING: unpacks CRIU and all it depends on
# into $bundle.
fetch_criu_packages() {
    local mirror=$1 keyring=$2 apt=$scratch/criu-apt options=''
    [ -n "$keyring" ] || keyring=$(debian_keyring)
    options=${keyring:+signed-by=$keyring}
    # An archive frozen at a date is out of its validity by design.
    [[ $mirror != */archive/debian/* ]] || options="${options:+$options }check-valid-until=no"
    mkdir -p "$apt"
    printf 'deb %s %s %s main\n' "${options:+[$options]}" "$mirror" "${GODWIT_CRIU_SUITE:-testing}" >"$apt/sources.list"

    private_apt_create "$apt" "$apt/sources.list"
    # apt calls a failed fetch of lists a warning unless told otherwise.
    apt_quietly private_apt "$apt" -o APT::Update::Error-Mode=any update || return 1
    private_apt_download "$apt" criu || return 1
    # In the layout of the suite: /lib and /lib64 are links into /usr.
    mkdir -p "$bundle"/usr/{bin,sbin,lib,lib64}
    ln -s usr/lib usr/lib64 "$bundle/"
    unpack "$bundle" "$apt"/cache/archives/*.deb || return 1
    rm -rf -- "${bundle:?}/usr/share"
}

debian_keyring() {
    local file
    for file in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
        [ ! -r "$file" ] || { echo "$file" && return 0; }
    done
}

# Makes the binary find its own loader and libraries wherever the host has
# others. --force-rpath, since only DT_RPATH also covers what libraries load in
# their turn.
relocate_criu() {
    local bundle=$1 binary triplet loader
    binary=$(find "$bundle/usr/sbin" "$bundle/usr/bin" -name criu -type f | head -n1)
    triplet=$(basename -- "$(dirname -- "$(find "$bundle/usr/lib" -name 'libc.so.6' | head -n1)")")
    loader=$(patchelf --print-interpreter "$binary") || return 1
    [ -e "$bundle$loader" ] || return 1
    mkdir -p "$bundle/bin"
    mv -- "$binary" "$bundle/bin/criu"
    patchelf --force-rpath --set-rpath "$bundle/usr/lib/$triplet" "$bundle/bin/criu" &&
        patchelf --set-interpreter "$bundle$loader" "$bundle/bin/criu"
}

# One rename makes the new directory the current one; the others are removed
# after it. A criu that runs keeps the files it has mapped.
switch_criu() {
    local dir=$1 other
    ln -sfn "$(basename -- "$dir")" "$GODWIT_LIB/.criu.new"
    mv -fT "$GODWIT_LIB/.criu.new" "$GODWIT_LIB/criu"
    for other in "$GODWIT_LIB"/criu-*; do
        [ "$other" = "$dir" ] || rm -rf -- "$other"
    done
}
