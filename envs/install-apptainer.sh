#!/usr/bin/env bash
# install-apptainer.sh [PREFIX]: apptainer for a Debian 12 machine (x86_64), whose own archive has none.
#
# Debian's next release has it, built for a newer C library. Both are fetched by apt, checked by Debian's keys, unpacked
# under PREFIX (default /opt/apptainer, 80 MB) and tied to one another there. No package of the machine is installed,
# removed or upgraded; `rm -r PREFIX` takes it away.
#
# Needs patchelf and, to build images, squashfs-tools: apt-get install patchelf squashfs-tools
set -euo pipefail

prefix=$(realpath -m "${1:-/opt/apptainer}")
suite=${SUITE:-sid}
triplet=x86_64-linux-gnu
loader=ld-linux-x86-64.so.2
packages=(apptainer libc6 libseccomp2 libsqlite3-0)
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

[[ $(uname -m) == x86_64 ]] || fail "this script is for x86_64 and this machine is $(uname -m)"
for tool in apt-get dpkg-deb patchelf; do
    command -v "$tool" > /dev/null || fail "$tool is not on PATH: apt-get install patchelf, on a Debian machine"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,archives/partial,sources,root}

# An apt of its own: the mirror of this machine, the other suite, nothing of the machine's lists or state.
# shellcheck disable=SC1091
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Release: $release" | head -n 1)
[[ -n $mirror ]] || fail "apt knows no mirror for $release: run apt-get update first"
cat > "$work/sources/next.sources" << SOURCES
Types: deb
URIs: $mirror
Suites: $suite
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
cat > "$work/apt.conf" << CONF
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$work/sources";
Dir::State::lists "$work/lists";
Dir::Cache::archives "$work/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
APT::Sandbox::User "$(id -un)";
CONF
(
    export APT_CONFIG=$work/apt.conf
    apt-get -qq update
    cd "$work/archives"
    apt-get -qq download "${packages[@]}"
)
for archive in "$work"/archives/*.deb; do
    echo "$(sha256sum < "$archive" | cut -c1-16)… $(basename "$archive")"
    dpkg-deb --extract "$archive" "$work/root"
done

new=$prefix.partial
rm -rf "$new"
mkdir -p "$new/$triplet" "$new/lib" "$new/libc"
cp -a "$work/root/usr/bin" "$work/root/etc" "$work/root/var" "$new/"
rm -rf "$new/etc/ld.so.conf.d"
# apptainer looks for its starter under lib/TRIPLET, and the starter for its configuration three folders above itself
cp -a "$work/root/usr/lib/$triplet/apptainer" "$new/$triplet/"
ln -s "../$triplet" "$new/lib/$triplet"
for library in "$loader" libc.so.6 libm.so.6 libresolv.so.2 libpthread.so.0 libdl.so.2 libnss_files.so.2 \
    libnss_dns.so.2 libseccomp.so.2 libsqlite3.so.0; do
    cp -L "$work/root/usr/lib/$triplet/$library" "$new/libc/"
done
for program in "bin/apptainer" "$triplet/apptainer/bin/starter"; do
    patchelf --set-interpreter "$prefix/libc/$loader" --force-rpath --set-rpath "$prefix/libc" "$new/$program"
done
ln -sf apptainer "$new/bin/singularity"

# Root inside a container or sandbox often lacks some capabilities; apptainer's default asks for all of them and fails.
sed -i 's/^root default capabilities = .*/root default capabilities = file/' "$new/etc/apptainer/apptainer.conf"
capabilities='"CAP_CHOWN","CAP_DAC_OVERRIDE","CAP_FOWNER","CAP_FSETID","CAP_KILL","CAP_SETGID","CAP_SETPCAP","CAP_SETUID"'
echo "{\"users\":{\"root\":[$capabilities,\"CAP_MKNOD\",\"CAP_SETFCAP\",\"CAP_SYS_CHROOT\"]}}" \
    > "$new/etc/apptainer/capability.json"

# A bind of a file that is not there ends every container: a Debian without tzdata has no /etc/localtime.
for path in /etc/localtime /etc/hosts; do
    [[ -e $path ]] || sed -i "\\|^bind path = $path\$|d" "$new/etc/apptainer/apptainer.conf"
done

rm -rf "$prefix"
mv "$new" "$prefix"
"$prefix/bin/apptainer" --version
echo "Put it on PATH: export PATH=$prefix/bin:\$PATH"
