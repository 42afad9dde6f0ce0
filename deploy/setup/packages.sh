# Packages of the distribution, installed the usual way. Sourced by setup.sh.
# None of them starts a service when installed (nftables ships a unit, which
# Debian leaves disabled) but docker-registry, which is stopped again: tests
# start their own.
# shellcheck shell=bash

# The Godwit binaries call these on every host.
# shellcheck disable=SC2034 # used by setup.sh
runtime_packages=(iproute2 nftables tar libseccomp2)
# shellcheck disable=SC2034
build_packages=(gcc libc6-dev pkg-config libseccomp-dev)
# buildah is the peer of builds; registries and their clients are counterparts of ours.
# shellcheck disable=SC2034
test_packages=(jq patchelf procps buildah skopeo docker-registry apache2-utils)

is_installed() {
    # ${db:Status-Status} is dpkg's, not the shell's.
    # shellcheck disable=SC2016
    [ "$(dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | head -n1)" = installed ]
}

# pkg-config is a virtual name on newer releases, provided by pkgconf.
is_satisfied() {
    is_installed "$1" || { [ "$1" = pkg-config ] && is_installed pkgconf; }
}

ensure_packages() {
    local package missing=()
    for package in "$@"; do
        is_satisfied "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0

    log "installing ${missing[*]}"
    refresh_lists
    apt_quietly apt-get install -y --no-install-recommends \
        -o DPkg::Lock::Timeout=600 "${missing[@]}" ||
        die "apt could not install ${missing[*]}" "its messages are above; \`apt-get -f install\` repairs a broken state"
}

# Only where systemd runs is there anything to stop.
stop_service() {
    [ -d /run/systemd/system ] || return 0
    systemctl disable --now "$1" >/dev/null 2>&1 || true
}

# Once in a run is enough. The lock of the lists has no time-out option of its
# own, so a concurrent apt is waited for here.
refresh_lists() {
    [ -z "${lists_are_fresh-}" ] || return 0
    lists_are_fresh=1
    local said deadline=$((SECONDS + 600))
    log "refreshing the package lists"
    while ! said=$(apt-get update 2>&1 9>&-); do
        if [[ $said == *"Could not get lock"* ]] && [ "$SECONDS" -lt "$deadline" ]; then
            sleep 2
            continue
        fi
        # A third-party source that is down must not stop us: the install
        # that follows says what is really missing.
        printf '%s\n' "$said" | grep '^[EW]:' >&2 || true
        log "warning: \`apt-get update\` failed, going on with the lists that are there"
        break
    done
}

# Runs a command and shows what it said only when it failed. Descriptor 9 is
# our own lock, which a daemon started by a maintainer script must not keep.
apt_quietly() {
    local said
    if said=$("$@" 2>&1 9>&-); then
        return 0
    fi
    printf '%s\n' "$said" | tail -n 20 >&2
    return 1
}
