#!/usr/bin/env bash
# build-image.sh [cuda|cpu]: the container image of --use-singularity, as `make image` calls it.
#
# Wheels that the lock's hashes admit -> OCI image by docker, podman or buildah -> images/{flavour}-{id}.sif by
# apptainer -> images/image.json, which the workflow reads. The same inputs give the same image id.
#
# Environment (all optional):
#   BASE_IMAGE   another base: glibc >= 2.28, python3 3.11 with venv and its headers, useradd. Default: the one pinned in Dockerfile, and
#                where no registry is reached a Debian 12 made from Debian's own packages by mmdebstrap
#   CPU_TORCH_INDEX  address of PyTorch's index of CPU builds, where pip was not told of one
#   BUILDER      docker, podman or buildah, instead of the first that works
#   PYTHON       a Python with venv, for pip's downloader
#   IMAGE_TMP    folder for temporary files: about 8 GB for cpu, 45 GB for cuda
#   SIF_LEVEL    zstd level of the SIF
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

flavour=${1:-cuda}
lock=envs/$flavour.lock
started=$SECONDS
step() { printf '[%4ds] %s\n' $((SECONDS - started)) "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
# one line of a file for people, all of it when something fails
quietly() { "$@" > "$work/log" 2>&1 || { cat "$work/log" >&2; return 1; }; }

[[ $flavour == cuda || $flavour == cpu ]] || fail "no flavour '$flavour': FLAVOUR is cuda or cpu"
[[ $(uname -m) == x86_64 ]] || fail "the locks of the image are for x86_64 and this machine is $(uname -m)"
engine=$(command -v apptainer || command -v singularity) ||
    fail "no apptainer and no singularity on PATH: install one (Debian 12: envs/install-apptainer.sh)"

pinned=$(sed -n 's/^ARG BASE_IMAGE=//p' Dockerfile)
SOURCE_DATE_EPOCH=$(sed -n 's/^ARG SOURCE_DATE_EPOCH=//p' Dockerfile)
export SOURCE_DATE_EPOCH
lock_digest=$(sha256sum "$lock" | cut -d' ' -f1)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
source_url=$(sed -n 's/^repository-code: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' CITATION.cff 2>/dev/null || true)

mkdir -p images wheels
# TMPDIR of the builders too; under images/ since /tmp is often small
work=$(mktemp -d -p "${IMAGE_TMP:-images}")
work=$(realpath "$work")
export TMPDIR=$work APPTAINER_TMPDIR=$work APPTAINER_CACHEDIR=$work/cache

# --- the builder ------------------------------------------------------------------------------------------------
# Own storage for podman and buildah: nothing under the user's or the system's is touched, all goes with $work.
# As root without all capabilities, only chroot isolation works; for others it is as good, as the build needs no network.
run_buildah() { buildah --root "$work/storage" --runroot "$work/run" "$@"; }
run_podman() { podman --root "$work/storage" --runroot "$work/run" "$@"; }
works() {
    case $1 in
    docker) docker info ;;
    podman) run_podman info ;;
    buildah) run_buildah info ;;
    esac > /dev/null 2>&1
}
remove_work() { [[ ${builder:-} == docker ]] || run_"$builder" rmi --all --force > /dev/null 2>&1 || true; rm -rf "$work"; }
trap 'remove_work' EXIT
for builder in ${BUILDER:-buildah podman docker}; do
    command -v "$builder" > /dev/null && works "$builder" && break
    builder=
done
[[ -n $builder ]] ||
    fail "${BUILDER:-none of docker, podman and buildah} does not work here: install one (Debian: apt install buildah)"
step "builder: $builder, engine: $engine"

# --- the wheels -------------------------------------------------------------------------------------------------
step "wheels/$flavour: what $lock admits"
"${PYTHON:-python3}" -m venv "$work/pip" || fail "${PYTHON:-python3} has no venv (Debian: apt install python3-venv)"
# newest first, as pip prefers them: where the lock admits several files of a package, the same one is always taken
platforms=()
for minor in $(seq 36 -1 5); do platforms+=(--platform "manylinux_2_${minor}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64)
mkdir -p "wheels/$flavour"
download() {
    "$work/pip/bin/pip" download --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary :all: --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none \
        "${platforms[@]}" --dest "wheels/$flavour" --requirement "$lock" "$@"
}
# What lies here already is asked first. The CPU build of torch is in PyTorch's own index, or where pip was told of it.
download --no-index --find-links "wheels/$flavour" > /dev/null 2>&1 ||
    quietly download ||
    { [[ -n ${CPU_TORCH_INDEX:-} ]] && download --extra-index-url "$CPU_TORCH_INDEX"; } ||
    fail "not every package of $lock can be downloaded, pip says above which; for torch's CPU build set CPU_TORCH_INDEX" \
        "to the address of PyTorch's own index of such builds"

# --- the base ---------------------------------------------------------------------------------------------------
build() {
    case $builder in
    docker) quietly docker build --network none "$@" ;;
    *) quietly run_"$builder" build --isolation chroot --timestamp "$SOURCE_DATE_EPOCH" "$@" ;;
    esac
}
pull() { case $builder in docker) docker pull -q "$1" ;; *) run_"$builder" pull -q "$1" ;; esac; }
base=${BASE_IMAGE:-$pinned}
if [[ $base != localhost/* ]] && ! quietly pull "$base" 2> /dev/null; then
    [[ -z ${BASE_IMAGE:-} ]] || fail "BASE_IMAGE $base cannot be pulled: $(tail -1 "$work/log")"
    command -v mmdebstrap > /dev/null ||
        fail "$base cannot be pulled: set BASE_IMAGE, or install mmdebstrap to make a base from Debian's packages"
    rootfs=images/base-bookworm.tar
    if [[ ! -s $rootfs ]]; then
        step "base: no registry reached, Debian 12 by mmdebstrap"
        quietly mmdebstrap --variant=minbase --include=ca-certificates,python3,python3-venv,libpython3.11-dev \
            --aptopt='Acquire::Check-Valid-Until "false"' bookworm "$work/rootfs.tar"
        mv "$work/rootfs.tar" "$rootfs"
    fi
    base=localhost/base-bookworm:$(sha256sum "$rootfs" | cut -c1-12)
    mkdir "$work/base"
    ln "$rootfs" "$work/base/rootfs.tar" 2> /dev/null || cp "$rootfs" "$work/base/rootfs.tar"
    printf 'FROM scratch\nADD rootfs.tar /\n' > "$work/base/Dockerfile"
    build --tag "$base" "$work/base"
fi
step "base: $base"

# --- the image --------------------------------------------------------------------------------------------------
step "image"
arguments=(--build-arg "BASE_IMAGE=$base" --build-arg "FLAVOUR=$flavour"
    --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" --build-arg "VERSION=$version"
    --build-arg "SOURCE=$source_url" --build-arg "LOCK_DIGEST=$lock_digest" --file Dockerfile)
archive=$work/image.tar
build "${arguments[@]}" --tag localhost/tradeoff .
step "archive"
if [[ $builder == docker ]]; then
    docker save --output "$archive" localhost/tradeoff
else
    quietly run_"$builder" push localhost/tradeoff "docker-archive:$archive"
    run_"$builder" rmi --all --force > /dev/null
fi

"$work/pip/bin/python" -m workflow.tradeoff.run.image --flavour "$flavour" --archive "$archive" --lock "$lock" \
    --base "$base" --builder "$builder" --level "${SIF_LEVEL:-9}"
step "done"
