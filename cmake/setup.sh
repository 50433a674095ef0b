#!/bin/sh
# From a fresh clone to a running program in one command:
#
#     sh cmake/setup.sh          installs what is missing, builds, trains the language model
#     sh cmake/setup.sh test     builds, runs the tests
#     sh cmake/setup.sh peers    installs the peers too, builds, says how to race them
#
# Everything is built in the folder build. Exit status 77: packages are missing, and this user
# may not install them.
set -eu
cd "$(dirname "$0")/.."

job=${1:-run}
packages="gcc g++ cmake ninja-build pkg-config libopenblas-dev libcpuinfo-dev libcmocka-dev
    libbenchmark-dev"
case $job in
run | test) ;;
peers)
    packages="$packages libdnnl-dev libxnnpack-dev libpthreadpool-dev python3-torch
        python3-numpy python3-scipy libpython3-dev python3-matplotlib"
    ;;
*)
    echo "usage: sh cmake/setup.sh [test | peers]" >&2
    exit 2
    ;;
esac

# Installs those of the packages that are missing. Elsewhere than on Debian, CMake says what is.
install_missing() {
    command -v dpkg-query >/dev/null || return 0
    missing=
    for package in "$@"; do
        case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
        "install ok installed") ;;
        *) missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || return 0

    if [ "$(id -u)" = 0 ]; then
        as_root="env"
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        as_root="sudo env"
    else
        echo "Packages are missing. As root, run:" >&2
        echo "    apt-get update && apt-get install -y --no-install-recommends$missing" >&2
        exit 77
    fi
    as_root="$as_root DEBIAN_FRONTEND=noninteractive apt-get"
    $as_root update || echo "setup.sh: apt-get update failed; trying the lists that are here" >&2
    # shellcheck disable=SC2086 # lists of words
    $as_root install -y --no-install-recommends $missing
}

# shellcheck disable=SC2086
install_missing $packages

# A build folder that came from another place is started afresh.
if grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$(pwd -P)" build/CMakeCache.txt 2>/dev/null; then
    cmake -S . -B build
else
    cmake --fresh -S . -B build -G Ninja
fi
cmake --build build

# OpenBLAS takes CPUs newer than itself for old ones.
if [ -z "${OPENBLAS_CORETYPE+set}" ]; then
    core=$(build/docs/examples/softlogit-info --blas-core-advice) || core=
    if [ -n "$core" ]; then
        echo "setup.sh: OpenBLAS does not make full use of this CPU: OPENBLAS_CORETYPE=$core"
        export OPENBLAS_CORETYPE="$core"
    fi
fi

case $job in
run) exec build/docs/examples/language_model ;;
test) exec ctest --test-dir build --output-on-failure ;;
peers)
    echo "Built. To race the library against its peers:"
    echo "    ${OPENBLAS_CORETYPE:+OPENBLAS_CORETYPE=$OPENBLAS_CORETYPE }build/bench/peers"
    ;;
esac
