# Container images for tests and the demo, made from packages of the machine's
# own distribution, since no registry may be in reach. Sourced by setup.sh.
#
#   busybox.tar  a docker-archive with one layer, as `docker save` writes it
#   redis.tar    an OCI image layout with two gzip'd layers
#
# The two formats differ on purpose: between them they cover what an import has
# to read. The same packages give the same bytes.
# shellcheck shell=bash disable=SC2154 # $scratch is setup.sh's

image_path_env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# The stamp is this file's digest: a changed recipe makes the images anew.
ensure_images() {
    local out=$GODWIT_SETUP_OUT recipe
    recipe=$(digest_of "${BASH_SOURCE[0]}")
    if [ -s "$out/busybox.tar" ] && [ -s "$out/redis.tar" ] &&
        [ "$(cat "$out/.recipe" 2>/dev/null)" = "$recipe" ]; then
        log "images are in place"
        return 0
    fi
    # Whatever of target/ does not exist yet is created for its owner.
    local top=$out
    while [ ! -e "$(dirname -- "$top")" ]; do top=$(dirname -- "$top"); done
    mkdir -p "$out"
    rm -f -- "$out/.recipe"

    make_scratch
    fetch_image_packages "$scratch/image-apt"
    make_busybox_image "$scratch/busybox" "$out/busybox.tar"
    make_redis_image "$scratch/redis" "$out/redis.tar"
    printf '%s\n' "$recipe" >"$out/.recipe"
    give_to_owner "$top"
}

fetch_image_packages() {
    local apt=$1
    log "fetching the packages of the images"
    private_apt_create "$apt"
    private_apt_download "$apt" busybox-static redis-server redis-tools 2>/dev/null && return 0
    # Lists that are missing or name files the mirror no longer has.
    refresh_lists
    private_apt_download "$apt" busybox-static redis-server redis-tools ||
        die "apt could not fetch busybox-static and redis-server" \
            "its messages are above; on Ubuntu both are in the \`universe\` component"
}

make_busybox_image() {
    local work=$1 image=$2 root=$1/root config layer
    log "making $(basename -- "$image")"
    mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin} "$work/image"
    add_busybox "$root" bin
    # The one absolute path that scripts take for granted.
    ln -s ../../bin/busybox "$root/usr/bin/env"
    add_base_files "$root"

    pack_tree "$root" "$work/layer.tar"
    layer=$(digest_of "$work/layer.tar")
    mkdir "$work/image/$layer"
    mv -- "$work/layer.tar" "$work/image/$layer/layer.tar"
    image_config '"Cmd":["sh"]' "sha256:$layer" >"$work/config.json"
    config=$(digest_of "$work/config.json").json
    mv -- "$work/config.json" "$work/image/$config"
    printf '[{"Config":"%s","RepoTags":["busybox:latest"],"Layers":["%s/layer.tar"]}]\n' \
        "$config" "$layer" >"$work/image/manifest.json"
    publish_image "$work/image" "$image"
}

make_redis_image() {
    local work=$1 image=$2 deb base_debs=() redis_debs=()
    log "making $(basename -- "$image")"
    for deb in "$scratch"/image-apt/cache/archives/*.deb; do
        case ${deb##*/} in
        redis-*) redis_debs+=("$deb") ;;
        # What only maintainer scripts use, and those do not run here.
        busybox-static_* | adduser_* | debconf_* | dpkg_* | perl_* | perl-* | libperl* | lib*-perl_* | usrmerge_*) ;;
        *) base_debs+=("$deb") ;;
        esac
    done

    make_merged_root "$work/base"
    unpack "$work/base" "${base_debs[@]}"
    add_busybox "$work/base" usr/bin
    add_base_files "$work/base"
    strip_docs "$work/base"

    make_merged_root "$work/redis"
    unpack "$work/redis" "${redis_debs[@]}"
    strip_docs "$work/redis"
    mkdir -p "$work/redis/data"
    # The links belong to the layer below. A second copy would be harmless, a
    # directory of that name would hide all of the C library.
    rm -f -- "$work"/redis/{bin,sbin,lib,lib64}
    find "$work/redis" -mindepth 1 -type d -empty ! -path "$work/redis/data" -delete

    write_oci_layout "$work" base redis
    prove_redis "$work"
    publish_image "$work/image" "$image"
}

# The layout of today's Debian: /bin and its like are links into /usr.
make_merged_root() {
    local dir
    for dir in bin sbin lib lib64; do
        mkdir -p "$1/usr/$dir"
        ln -s "usr/$dir" "$1/$dir"
    done
}

# add_busybox ROOT DIR: the static binary, and a link for each of its applets
# whose name DIR does not have yet.
add_busybox() {
    local root=$1 dir=$2 tree=$scratch/busybox-package applet
    if [ ! -e "$tree" ]; then
        make_merged_root "$tree"
        unpack "$tree" "$scratch"/image-apt/cache/archives/busybox-static_*.deb
    fi
    cp -- "$tree/bin/busybox" "$root/$dir/busybox"
    while read -r applet; do
        [ -e "$root/$dir/$applet" ] || ln -s busybox "$root/$dir/$applet"
    done < <("$tree/bin/busybox" --list)
}

add_base_files() {
    local root=$1
    mkdir -p "$root"/{dev,etc,home,mnt,opt,proc,root,run,srv,sys,tmp} "$root"/var/{cache,lib,log,tmp}
    [ -e "$root/var/run" ] || ln -s ../run "$root/var/run"
    chmod 0700 "$root/root"
    chmod 1777 "$root/tmp" "$root/var/tmp"
    printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'daemon:x:1:1:daemon:/usr/sbin:/bin/false' \
        'www-data:x:33:33:www-data:/var/www:/bin/false' 'redis:x:999:999:redis:/data:/bin/false' \
        'user:x:1000:1000:user:/home:/bin/sh' 'nobody:x:65534:65534:nobody:/home:/bin/false' >"$root/etc/passwd"
    printf '%s\n' 'root:x:0:' 'daemon:x:1:' 'tty:x:5:' 'www-data:x:33:' 'redis:x:999:' 'user:x:1000:' \
        'nogroup:x:65534:' >"$root/etc/group"
    printf '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n' >"$root/etc/hosts"
    printf 'localhost\n' >"$root/etc/hostname"
    printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
    : >"$root/etc/resolv.conf"
}

strip_docs() {
    local root=$1
    rm -rf -- "${root:?}"/usr/share/{doc,doc-base,man,locale,info,lintian,bug} "$root"/usr/lib/systemd "$root"/etc/init.d
    # Owners are flattened to root in a layer, so these bits would be wrong.
    find "$root" -type f -perm /6000 -exec chmod a-s {} +
}

# write_oci_layout WORK TREE...: WORK/image, with a layer from each WORK/TREE.
write_oci_layout() {
    local work=$1 tree digest size arch diff_ids=() layers=''
    shift
    arch=$(image_arch)
    mkdir -p "$work/image/blobs/sha256"
    for tree in "$@"; do
        pack_tree "$work/$tree" "$work/$tree.tar"
        diff_ids+=("sha256:$(digest_of "$work/$tree.tar")")
        gzip -n "$work/$tree.tar"
        size=$(stat -c %s "$work/$tree.tar.gz")
        digest=$(add_blob "$work/image" "$work/$tree.tar.gz")
        layers+=${layers:+,}$(descriptor application/vnd.oci.image.layer.v1.tar+gzip "$digest" "$size")
    done

    image_config '"Cmd":["redis-server","--protected-mode","no","--save","","--dir","/data"],"WorkingDir":"/data","ExposedPorts":{"6379/tcp":{}}' \
        "${diff_ids[@]}" >"$work/config.json"
    size=$(stat -c %s "$work/config.json")
    digest=$(add_blob "$work/image" "$work/config.json")
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":%s,"layers":[%s]}' \
        "$(descriptor application/vnd.oci.image.config.v1+json "$digest" "$size")" "$layers" >"$work/manifest.json"
    size=$(stat -c %s "$work/manifest.json")
    digest=$(add_blob "$work/image" "$work/manifest.json")
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"redis:latest"}}]}\n' \
        "$digest" "$size" "$arch" >"$work/image/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}\n' >"$work/image/oci-layout"
}

manifest_digest() { grep -oE '[0-9a-f]{64}' "$1/index.json"; }

# Moves FILE into the blobs of LAYOUT and prints its digest.
add_blob() {
    local digest
    digest=$(digest_of "$2")
    mv -- "$2" "$1/blobs/sha256/$digest"
    printf 'sha256:%s' "$digest"
}

descriptor() { printf '{"mediaType":"%s","digest":"%s","size":%s}' "$1" "$2" "$3"; }

# image_config MEMBERS DIFF_ID...: the config both formats share. MEMBERS is the
# JSON inside `config`, next to the environment.
image_config() {
    local members=$1 id ids='' history=''
    shift
    for id in "$@"; do
        ids+=${ids:+,}\"$id\"
        history+=${history:+,}'{"created":"1970-01-01T00:00:00Z","created_by":"godwit setup"}'
    done
    printf '{"created":"1970-01-01T00:00:00Z","architecture":"%s","os":"linux","config":{"User":"","Env":["%s"],%s},"rootfs":{"type":"layers","diff_ids":[%s]},"history":[%s]}' \
        "$(image_arch)" "$image_path_env" "$members" "$ids" "$history"
}

# Debian's name for the architecture, in the words of OCI.
image_arch() {
    local arch
    arch=$(dpkg --print-architecture)
    case $arch in
    armhf) echo arm ;;
    i386) echo 386 ;;
    ppc64el) echo ppc64le ;;
    *) echo "$arch" ;;
    esac
}

digest_of() { sha256sum -- "$1" | cut -d' ' -f1; }

# Packs what is in TREE, with nothing in it that depends on when or where.
pack_tree() {
    local tree=$1 file=$2
    find "$tree" -mindepth 1 -maxdepth 1 -printf '%P\0' | LC_ALL=C sort -z |
        tar -c --format=gnu --sort=name --mtime=@0 --numeric-owner --owner=0 --group=0 \
            -C "$tree" --null -T - -f "$file"
}

publish_image() {
    pack_tree "$1" "$2.new"
    mv -f -- "$2.new" "$2"
}

# Applies the layers the way a runtime does and starts what is in them.
prove_redis() {
    local work=$1 digest
    mkdir "$work/proof"
    while read -r digest; do
        tar -xzf "$work/image/blobs/sha256/$digest" -C "$work/proof"
    done < <(grep -o '"layers":.*' "$work/image/blobs/sha256/$(manifest_digest "$work/image")" | grep -oE '[0-9a-f]{64}')
    chroot "$work/proof" /bin/sh -c 'redis-server --version && redis-cli --version' >/dev/null ||
        die "redis does not run from the image that was made" "the messages above name what is missing"
    rm -rf -- "$work/proof"
}
