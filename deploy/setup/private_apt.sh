# An apt beside the system's: own state, cache and, if wanted, own sources.
# It downloads and unpacks packages that the host never gets to see installed.
# Sourced by setup.sh.
# shellcheck shell=bash

# private_apt_create DIR [SOURCES_FILE]
#
# With a sources file only that is used, and `private_apt DIR update` must
# follow. Without, the machine's own sources and lists are. The package status
# is empty, so a package the host has does not hide from the dependencies.
private_apt_create() {
    local dir=$1 sources=${2-}
    mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial"
    : >"$dir/status"
    {
        printf 'Dir::State "%s/state";\n' "$dir"
        printf 'Dir::State::status "%s/status";\n' "$dir"
        printf 'Dir::Cache "%s/cache";\n' "$dir"
        printf 'APT::Install-Recommends "false";\n'
        printf 'Acquire::Languages "none";\n'
        printf 'Acquire::Retries "3";\n'
        # Desktop metadata is a third of the download, for nothing.
        printf 'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
        if [ -n "$sources" ]; then
            printf 'Dir::Etc::SourceList "%s";\n' "$sources"
            printf 'Dir::Etc::SourceParts "/dev/null";\n'
            # Pins of the host are about the host's suite.
            printf 'Dir::Etc::Preferences "/dev/null";\n'
            printf 'Dir::Etc::PreferencesParts "/dev/null";\n'
        else
            printf 'Dir::State::lists "/var/lib/apt/lists";\n'
        fi
    } >"$dir/apt.conf"
}

# private_apt DIR ARGUMENT... runs apt-get there.
private_apt() {
    local dir=$1
    shift
    APT_CONFIG=$dir/apt.conf apt-get -q -y "$@"
}

# private_apt_download DIR PACKAGE... leaves the packages and all they depend on
# in DIR/cache/archives.
private_apt_download() {
    local dir=$1
    shift
    apt_quietly private_apt "$dir" install --download-only "$@"
}

# unpack ROOT DEB... for a root whose /bin, /sbin, /lib* are links into /usr:
# `dpkg -x` would replace them by the directories that older packages carry.
# tar follows them with --keep-directory-symlink.
unpack() {
    local root=$1 deb
    shift
    for deb in "$@"; do
        dpkg --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -p -C "$root" || return 1
    done
}

# Lines `URI KEYRING` (the second may be empty) of the Debian archives this
# machine is configured for, the archive of security updates left out: it has no
# complete suite.
debian_mirrors() {
    {
        apt-get indextargets 'Identifier: Packages' 2>/dev/null | awk '
            /^Repo-URI: / { uri = $2 }
            /^Signed-By: / { key = $2 }
            /^$/ { if (uri) print uri, key; uri = key = "" }
            END { if (uri) print uri, key }'
        # The sources themselves, in case apt lists only what it has fetched.
        cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
            sed -n 's/^[[:space:]]*#.*//; s/^URIs:[[:space:]]*//p; s/^deb[[:space:]]\+\(\[[^]]*\][[:space:]]*\)\?\([^[:space:]]\+\).*/\2/p' |
            tr -s '[:blank:]' '\n' || true
    } | awk '
        $1 !~ /:\/\// { next }
        $1 !~ /\/debian(\/|$)/ { next }
        { sub(/\/+$/, "", $1) }
        !seen[$1]++ { print $1, $2 }'
}

# A mirror may be frozen at a date (…/archive/debian/<timestamp>), with a
# testing too old to have what we need. Lines as above: as configured, then the
# same archive of recent days, then without any date.
debian_mirror_candidates() {
    local uri keyring days
    while read -r uri keyring; do
        printf '%s %s\n' "$uri" "$keyring"
        [[ $uri =~ ^(.*)/archive/debian/[0-9]{8}T[0-9]{6}Z$ ]] || continue
        for days in 1 30 90; do
            printf '%s/archive/debian/%s %s\n' "${BASH_REMATCH[1]}" \
                "$(date -u -d "-$days days" +%Y%m%dT000000Z)" "$keyring"
        done
        printf '%s/debian %s\n' "${BASH_REMATCH[1]}" "$keyring"
        printf '%s/archive/debian %s\n' "${BASH_REMATCH[1]}" "$keyring"
    done
}
