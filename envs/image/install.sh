#!/bin/sh
# install.sh FLAVOUR WHEELS: runs once while the image is built. Hash-checked packages into /opt/venv, from WHEELS alone.
set -eu
flavour=$1
wheels=$2/$flavour

python3 -m venv /opt/venv
export PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
unset PIP_FIND_LINKS PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_CERT
# the one that venv brings: only what is pinned is installed
/opt/venv/bin/pip uninstall --quiet --yes setuptools
/opt/venv/bin/pip install --quiet --no-index --find-links "$wheels" --no-deps --require-hashes \
    --requirement /opt/image/requirements.lock
/opt/venv/bin/pip check

# What no stage opens: packages' own tests, headers and link libraries.
packages=$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
/opt/venv/bin/python -I /opt/image/trim.py "$flavour" "$packages"

HOME=/tmp/home /opt/venv/bin/python -IB /opt/image/imports.py
rm -rf /tmp/home

# ONNX Runtime finds CUDA through the loader; torch's wheels put it in nvidia/*/lib.
if [ "$flavour" = cuda ]; then
    ls -d "$packages"/nvidia/*/lib > /etc/ld.so.conf.d/nvidia-wheels.conf
    ldconfig
    rm -f /var/cache/ldconfig/aux-cache

    # Triton compiles a few lines of C when a kernel is first called; it looks for a clang on PATH, and zig's is one.
    cat > /opt/venv/bin/clang <<END
#!/bin/sh
export ZIG_GLOBAL_CACHE_DIR="\${ZIG_GLOBAL_CACHE_DIR:-\${TMPDIR:-/tmp}/zig-\$(id -u)}"
exec $packages/ziglang/zig cc "\$@"
END
    chmod 755 /opt/venv/bin/clang
    ZIG_GLOBAL_CACHE_DIR=/tmp/zig sh /opt/image/extension.sh /opt/venv/bin/clang
    rm -rf /tmp/zig
fi

useradd --create-home --uid 1000 --shell /bin/sh study
