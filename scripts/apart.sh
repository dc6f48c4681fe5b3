#!/bin/sh
# apart.sh PROGRAM...: the program with processes and mounts of its own, so that what it sees of either is its own doing.
# The shell stays: it is process 1 there, and collects what is orphaned.
exec unshare --pid --mount --fork --kill-child --mount-proc sh -c '"$@"; exit $?' sh "$@"
