#!/bin/sh
# extension.sh COMPILER: compile a Python extension as Triton does, and import it. Fails where it could not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/probe.c" <<'END'
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "probe", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_probe(void) { return PyModule_Create(&module); }
END
include=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include", "posix_prefix"))')
"$1" "$folder/probe.c" -O3 -shared -fPIC -Wno-psabi -o "$folder/probe.so" -I"$include"
cd "$folder" && python3 -c 'import probe'
