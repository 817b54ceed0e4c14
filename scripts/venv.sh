# Sourced by the scripts beside it: makes .venv and installs the package into it.
# shellcheck shell=bash

fail() {
    echo "${0##*/}: $1" >&2
    exit 1
}

# find_python: prints a Python that is new enough, with or without its venv module.
find_python() {
    local name
    for name in python3.11 python3.12 python3.13 python3.14 python3; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    fail "Python 3.11 or newer is needed: apt install python3 python3-venv (Ubuntu 22.04: python3.11 python3.11-venv)"
}

# install_missing PYTHON: what pip cannot bring. As root it is installed, others are told the command.
install_missing() {
    local missing=()
    if ! "$1" -c 'import venv, ensurepip' 2>/dev/null; then
        missing+=("$("$1" -c 'import sys; print(f"python3.{sys.version_info[1]}")')-venv")
    fi
    # The embedded mongod is linked with it; a mongod on PATH is preferred to that one.
    if ! command -v mongod >/dev/null && ! "$1" -c 'import ctypes; ctypes.CDLL("libcurl.so.4")' 2>/dev/null; then
        missing+=(libcurl4)
    fi
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        fail "this machine lacks something: sudo apt install ${missing[*]}"
    fi
    echo "Installing ${missing[*]}"
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}"; } >/dev/null 2>&1; then
        fail "these packages could not be installed: apt install ${missing[*]}"
    fi
}

# make_venv EXTRAS: .venv holds the package with these extras afterwards.
make_venv() {
    local python
    python=$(find_python) || exit 1
    install_missing "$python"
    if ! [ -x .venv/bin/python ] || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
        rm -rf .venv
        "$python" -m venv .venv || fail ".venv could not be made with $python"
    fi
    local sum
    sum=$(cat pyproject.toml DmpWorkflow/__init__.py | cksum)
    case "$(cat .venv/installed 2>/dev/null)" in
    "$1"*" $sum") return ;; # these extras, and perhaps more
    esac
    echo "Installing Python packages into .venv"
    if ! .venv/bin/pip install --quiet --disable-pip-version-check --editable ".[$1]" >.venv/pip.log 2>&1; then
        fail "the Python packages could not be installed ($(grep -m 1 ERROR .venv/pip.log || tail -n 1 .venv/pip.log)); all of pip's words are in .venv/pip.log"
    fi
    echo "$1 $sum" >.venv/installed
}
