#!/usr/bin/env bash
# Runs scripts/bench/exchange_on_hosts.py on two and three hosts at 1 Gbit/s. Needs root.
#     PYTHON=python3 scripts/bench/exchange_on_hosts.sh [options of exchange_on_hosts.py]
set -euo pipefail
cd "$(dirname "$0")/../.."

python=$(command -v "${PYTHON:-python3}")
export MPIRUN=${MPIRUN:-$(dirname "$python")/mpirun}
# Three hosts on two cores: a waiting rank must yield the CPU.
settings=("PYTHONPATH=$PWD" OMP_NUM_THREADS=1 OMPI_MCA_mpi_yield_when_idle=1)
scripts/dev/hosts up 3 1gbit
trap 'scripts/dev/hosts down' EXIT
for n in 2 3; do
    echo
    echo "$n hosts, $MPIRUN"
    echo
    scripts/dev/hosts run -n "$n" -- env "${settings[@]}" \
        "$python" scripts/bench/exchange_on_hosts.py "$@"
done
