#!/bin/sh
# three hosts without a file system in common: network and mount namespaces, Open MPI over veth, --scratch
. "${0%/*}/lib.sh"
. "$data/mk/demo.sh"
no_leak_check
. "$data/mk/ranks.sh"

[ -n "$have_mpi" ] || skip_all 'no MPI'
mpirun --version 2>/dev/null | grep -q 'Open MPI' || skip_all 'no Open MPI'
command -v ip >/dev/null && command -v nsenter >/dev/null || skip_all 'no ip or nsenter'
unshare -n -m -u --propagation private true 2>/dev/null && [ "$(id -u)" -eq 0 ] || skip_all 'namespaces are not permitted'

# --- the hosts ---

hosts='1 2 3'
dir=$PWD/host       # a file system of its own on each
mkdir "$dir" pids
ids 64 7 >ids
short small

end_hosts() {
    # shellcheck disable=SC2046
    kill -9 $(cat "$t_base"/w/pids/*) 2>/dev/null
    cd / && if [ "${KEEP:-}" = 1 ]; then echo "# kept $t_base/w"; else rm -rf "$t_base"; fi
}
trap end_hosts EXIT

unshare -n sleep 600 &
echo $! >pids/switch
# Not before it has left our network: on a busy machine a bridge was made here.
until [ "$(readlink "/proc/$(cat pids/switch)/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do
    sleep 0.05
done
on() {      # HOST command ...
    on_pid=$(cat "$t_base/w/pids/$1")
    shift
    # shellcheck disable=SC2016
    nsenter -n -m -u -t "$on_pid" -- sh -c 'cd "$0" && exec "$@"' "$dir" "$@"
}
connect() { # HOST
    nsenter -n -t "$(cat pids/switch)" ip link add "v$1" type veth peer name eth0 netns "$(cat "pids/$1")" &&
        nsenter -n -t "$(cat pids/switch)" ip link set "v$1" master br0 up &&
        on "$1" ip link set lo up && on "$1" ip addr add "10.77.0.$1/24" dev eth0 && on "$1" ip link set eth0 up
}
host() {    # HOST: name, file system, network
    unshare -n -m -u --propagation private sh -c "hostname host$1 && mount -t tmpfs tmpfs '$dir' && cp -R ids small '$dir' &&
        : >'$dir/ready' && exec sleep 600" &
    echo $! >"pids/$1"
    until nsenter -m -t "$(cat "pids/$1")" test -e "$dir/ready" 2>/dev/null; do
        kill -0 "$(cat "pids/$1")" 2>/dev/null || return 1
        sleep 0.05
    done
    connect "$1"
}
up=
if nsenter -n -t "$(cat pids/switch)" sh -c 'ip link add br0 type bridge && ip link set br0 up' >log 2>&1; then
    up=1
    for h in $hosts; do
        host "$h" >log 2>&1 || up=
    done
fi
[ -n "$up" ] || skip_all "no hosts here: $(tail -n 1 log)"

# What Open MPI takes for ssh.
cat >agent <<EOA
#!/bin/sh
h=\${1#10.77.0.}
shift
exec nsenter -n -m -u -t "\$(cat "$PWD/pids/\$h")" -- sh -c "cd '$dir' && \$*"
EOA
chmod +x agent

start() {   # all three ranks, in the background
    on 1 timeout 120 mpirun --allow-run-as-root -n 3 -H 10.77.0.1:1,10.77.0.2:1,10.77.0.3:1 --bind-to none \
        --mca plm_rsh_agent "$PWD/agent" --mca plm rsh --mca btl self,tcp --mca btl_tcp_if_include 10.77.0.0/24 \
        --mca oob_tcp_if_include 10.77.0.0/24 --wdir "$dir" -x PATH \
        llmc pipeline -C w --scratch sc --comm mpi -q -j 1 "$@" </dev/null >mpi.log 2>&1 &
}

plan() {
    for h in $hosts; do
        on "$h" rm -rf w sc out
        on "$h" llmc-shard -C w -m small -d ids --block-tokens 64 -s W4A16 -g 64 --ranks 3 -q
    done
}

left() {    # HOST
    on "$1" find "sc/$(($1 - 1))/weights" -type l | wc -l
}

# On one of the hosts, since provenance.json has the model's path.
on 1 llmc-shard -C one -m small -d ids --block-tokens 64 -s W4A16 -g 64 -q
on 1 llmc pipeline -C one -q >one.out
on 1 llmc-pack -C one -o good -q >/dev/null
on 1 sh -c 'cd good && sha256sum ./*' >good.sums

result() {
    on 1 rm -rf out && on 1 llmc-pack -C sc/0 -o out -q >/dev/null && on 1 sh -c 'cd out && sha256sum ./*' >sums
    [ "$(grep -c . good.sums)" -ge 4 ] && diff good.sums sums
}

ok 'hosts are apart' '
    on 1 touch here && ! on 2 test -e here && [ ! -e host/here ]
    [ "$(on 2 hostname)" = host2 ] && on 2 ping -c 1 -W 5 10.77.0.3 >/dev/null 2>&1 || on 2 ip addr show eth0
'
ok 'three hosts make the bytes of one rank' '
    plan
    start
    wait $! || { cat mpi.log; exit 1; }
    result
'
ok 'each of them has all of it, and sees its own directory alone' '
    for h in $hosts; do
        [ "$(left $h)" -eq 0 ]
        [ "$(on $h ls sc)" = "$((h - 1))" ]
    done
    on 1 sh -c "cd sc/0/weights && sha256sum ./*" >want
    for h in 2 3; do
        on $h sh -c "cd sc/$((h - 1))/weights && sha256sum ./*" | diff want -
    done
    [ -z "$(ls host)" ]
'
ok 'one host is lost, all end, and the same command goes on' '
    plan
    start
    pid=$!
    until sign=$(on 2 cat sc/1/ranks/1.gptq 2>/dev/null) && [ -n "$(on 2 find sc/1/weights -type f)" ]; do
        kill -0 $pid || { cat mpi.log; exit 1; }
    done
    kill -9 $(echo "$sign" | cut -d " " -f 2)
    rc=0
    wait $pid || rc=$?
    echo "exit status $rc, left $(left 1) $(left 2) $(left 3)"
    [ $rc -ne 0 ] && [ $rc -ne 124 ] && [ "$(left 2)" -gt 0 ]
    start
    wait $! || { cat mpi.log; exit 1; }
    result
'
ok 'another plan is refused' '
    on 3 rm -rf w && on 3 llmc-shard -C w -m small -d ids --block-tokens 64 -s W4A16 -g 32 --ranks 3 -q
    start
    rc=0
    wait $! || rc=$?
    cat mpi.log
    [ $rc -ne 0 ] && grep -q "made from another plan" mpi.log
'
ok 'also by the ranks among each other' '
    on 3 rm -rf sc
    start
    rc=0
    wait $! || rc=$?
    cat mpi.log
    [ $rc -ne 0 ] && [ $rc -ne 124 ] && grep -q "ranks have different plans" mpi.log
'
ok 'not by files' '
    llmc-shard -C f -m small -d ids --block-tokens 64 -s W4A16 -g 64 --ranks 2 -q
    rc=0
    llmc pipeline -C f --scratch fs --comm files --rank 0 --ranks 2 -q </dev/null 2>err || rc=$?
    cat err
    [ $rc -eq 64 ] && grep -q "scratch needs communicator mpi" err
'

done_testing
