#!/bin/sh
# Names every missing tool with its Debian/Ubuntu package before anything is installed.
PYTHON="${PYTHON:-python3}"
missing=""

need() { # need WHAT PACKAGE
    echo "missing: $1 (apt package $2)" >&2
    missing="$missing $2"
}

if ! command -v "$PYTHON" >/dev/null 2>&1; then
    need "$PYTHON, Python 3.11 or later" python3
elif ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    need "Python 3.11 or later ($PYTHON is $("$PYTHON" -V 2>&1))" python3
else
    "$PYTHON" -c 'import venv, ensurepip' >/dev/null 2>&1 || need "Python's venv module" python3-venv
    "$PYTHON" - <<'END' || need "Python's C headers" python3-dev
import pathlib, sys, sysconfig
sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").is_file())
END
fi
command -v make >/dev/null 2>&1 || need make make
command -v g++ >/dev/null 2>&1 || command -v c++ >/dev/null 2>&1 || need "a C++ compiler" g++

if [ -n "$missing" ]; then
    echo "install with: apt-get install$missing" >&2
    exit 1
fi
