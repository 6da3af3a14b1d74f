# Sourced by ./quickstart and ./check: has this machine ready, or says in one line what to do.
# Needs: $here, the project's folder; may have: $need_gb, free disk. Makes: apt packages, and a virtual environment in .venv.

packages=(
    # the local lab and its roots
    mmdebstrap tini iproute2 ethtool util-linux mount procps debian-archive-keyring
    # the guest image and its probe
    gcc libc6-dev zstd
    # a guest that boots from a disk of its own
    syslinux syslinux-common mtools e2fsprogs
    # a nested host's image, and a shell on it
    squashfs-tools kmod openssh-client
    # the rules that a prepared host gets, tried for real
    nftables
    # what bench/ holds the meter against
    iputils-ping
    # libvirt's Python binding is built from source
    python3 python3-dev python3-venv libvirt-dev pkg-config
)
python=${MIGRATE_LAB_PYTHON:-/usr/bin/python3}
os_release=${MIGRATE_LAB_OS_RELEASE:-/etc/os-release}
venv=${MIGRATE_LAB_VENV:-$here/.venv}
need_gb=${need_gb:-3}

refuse() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 3
}

progress() {
    printf '[%s] %s\n' "$(date +%H:%M:%S)" "$1" >&2
}

check_machine() {
    local id version free
    [ "$(id -u)" = 0 ] || refuse "needs root, for network namespaces and mounts: run it with sudo"
    id=$(sed -n 's/^ID=//p' "$os_release" 2>/dev/null | tr -d '"')
    version=$(sed -n 's/^VERSION_ID=//p' "$os_release" 2>/dev/null | tr -d '"')
    case $id-$version in
    debian-12 | debian-13) ;;
    *) refuse "made for Debian 12 and 13, this is ${id:-unknown} ${version:-}: use such a machine, or a virtual one" ;;
    esac
    [ "$(uname -m)" = x86_64 ] || refuse "made for x86_64, this is $(uname -m): use such a machine"
    free=$(df --output=avail -k "$here" | tail -n 1)
    [ "$free" -ge "${MIGRATE_LAB_NEED_KIB:-$((need_gb * 1000000))}" ] ||
        refuse "needs $need_gb GB of free disk for $here and /var/cache/migrate-lab, there are $((free / 1024)) MB: make room"
}

install_packages() {
    local missing=() package log
    for package in "${packages[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    progress "installing ${missing[*]}"
    log=$(mktemp)
    if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        rm -f "$log"
        refuse "apt could not install ${missing[*]}: is a Debian mirror within reach, and is there room? then run it again"
    fi
    rm -f "$log"
}

# $1: "", or "[dev]" for all extras and the tools of the check: the exact versions of a lock file.
# Made anew when that or pyproject.toml has changed, and never left half made.
make_venv() {
    local stamp log lock=$here/requirements.lock
    [ -z "$1" ] || lock=$here/requirements-dev.lock
    stamp="$(cat "$here"/pyproject.toml "$here"/requirements*.lock | sha256sum | cut -d ' ' -f 1) $here $1"
    [ "$(cat "$venv/.made" 2>/dev/null)" != "$stamp" ] || return 0
    case $(cat "$venv/.made" 2>/dev/null) in
    "${stamp%% *} $here [dev]") return 0 ;; # has all that a run needs, and more
    esac
    progress "making the virtual environment"
    rm -rf "$here/migrate_lab.egg-info" # of an older installation: its entry points are found in this folder
    log=$(mktemp)
    if ! { "$python" -m venv --clear "$venv" && "$venv/bin/pip" install -q --require-hashes -r "$lock" &&
        "$venv/bin/pip" install -q --no-deps --no-build-isolation -e "$here"; } >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        rm -rf "$log" "$venv"
        refuse "pip could not install migrate-lab$1: is PyPI within reach, and is there room? then run it again"
    fi
    printf '%s\n' "$stamp" >"$venv/.made"
    rm -f "$log"
}

prepare() {
    check_machine
    install_packages
    make_venv "$1"
}
