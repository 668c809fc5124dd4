# Sourced by other scripts: finds Python, creates environments, installs the package.

complain() {
    printf '%s\n' "$@" >&2
    exit 2
}

# Prints the path of a Python that is new enough.
find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    complain "Python 3.11 or newer is needed and none was found (found: $(python3 --version 2>&1 || echo none))." \
        "Install one, for example:" \
        "    Debian, Ubuntu:  apt-get install python3 python3-venv" \
        "    Fedora, RHEL:    dnf install python3.12" \
        "    SUSE:            zypper install python312" \
        "    macOS:           brew install python" \
        "    a cluster:       module load python (its name: module avail python)" \
        "or name it: PYTHON=/path/to/python3.12 $0"
}

# make_environment DIR: create a virtual environment with pip, unless a working one exists.
make_environment() {
    local folder=$1 python version
    if "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
        return
    fi
    python=$(find_python)
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        complain "$python cannot make virtual environments: it lacks venv or ensurepip." \
            "Install the system package that has them, then run this again:" \
            "    Debian, Ubuntu:  apt-get install python$version-venv   (or python3-venv)" \
            "    Fedora, RHEL:    dnf install python3-pip" \
            "    SUSE:            zypper install python3-pip"
    fi
    echo "making $folder with $python"
    "$python" -m venv --clear "$folder"
}

# install_package DIR EXTRAS: install the package with extras, unless nothing has changed.
# Not editable, so that the files, kernels/ included, are those that users get, and because
# the import hook of an editable install slows down every start.
install_package() {
    local folder=$1 extras=$2 state
    state="$extras $(sources | xargs cksum | cksum)"
    if [ "$(cat "$folder/.installed" 2>/dev/null)" = "$state" ]; then
        return
    fi
    echo "installing pympi-train[$extras] into $folder"
    rm -rf build # or setuptools would pack files that were deleted from the tree
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check ".[$extras]"
    printf '%s' "$state" >"$folder/.installed"
}

sources() {
    find setup.cfg pyproject.toml README.md LICENSE pympi_train kernels \
        -name __pycache__ -prune -o -type f -print 2>/dev/null | LC_ALL=C sort
}

# By default, Open MPI refuses to run as root and with more ranks than cores.
allow_open_mpi() {
    if [ "$(id -u)" = 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
    export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
    export OMPI_MCA_btl=^ofi OMPI_MCA_osc=^ucx # starts a second faster
}
