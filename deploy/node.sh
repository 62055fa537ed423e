#!/bin/sh
# Runs an edge node in a container that Docker starts again whenever it ends (compose.yaml).
#
# Docker cannot tell status 2 from a crash. It is for what a person must mend (a wrong password, a
# checkpoint that does not fit) and for a node whose place a newer one of its name has taken: two
# that are started again would push each other out for ever. So the container stays after it, and
# serves no more until somebody restarts it.
set -u

node= ended=
trap 'if [ "$node" ]; then kill "$node"; else ended=yes; fi' TERM INT
offramp "$@" &
node=$!
[ -z "$ended" ] || kill "$node"
wait "$node"
status=$?
while kill -0 "$node" 2> /dev/null; do # a signal ended the waiting: the node answers what it has
    wait "$node"
    status=$?
done

if [ "$status" = 2 ]; then
    echo "the node ended with status 2, and is not started again: see the lines above; then" \
        "docker compose restart node" >&2
    trap 'kill "$!"; exit 2' TERM INT
    while :; do
        sleep 86400 &
        wait "$!"
    done
fi
exit "$status"
