#!/bin/sh
# pytest.sh [ARGUMENTS...]: the tests of the venv, a whole suite on as many processors as there are.
#
# The tests look at all of the machine's processes and mounts, so side by side they run in namespaces of their own (apart.sh): as
# root. Whoever names tests gets one plain process, which starts at once.
set -eu
cd "$(dirname "$0")/.."
count=$(nproc)
for word in "$@"; do
    case $word in
    tests* | -k* | -m* | -x | --pdb) count=1 ;;
    esac
done
if [ "$count" -gt 1 ] && sh scripts/apart.sh true 2>/dev/null; then
    set -- --dist=loadfile --no-loadscope-reorder --tx "$count*popen//python=sh scripts/apart.sh .venv/bin/python" "$@"
fi
exec .venv/bin/python -m pytest "$@"
