#!/usr/bin/env bash
# Two machines, made of two network namespaces with a cable between them, and what happens when it is cut:
# two-machines.sh [MIXLORA]          (default: .build/release/mixlora; needs root, iproute2, Open MPI or MPICH)
#
# For each MPI that is installed:
#   whole   two ranks, one on each machine, write the files of one process, byte for byte; bytes on the cable, counted by the kernel
#   cut     the cable is cut in the middle of a run: within --rank-timeout and 5 s both ranks have ended with a sentence that names the
#           other and its machine, and the last checkpoint is whole: one process goes on from it to the same bytes
# Exit status: 0 if all of it held, 1 if not, 77 if it cannot be tried here.
set -uo pipefail
program=$(realpath "${1:-.build/release/mixlora}")
[ -x "$program" ] || { echo "no program $program" >&2; exit 2; }
skip() { echo "not run: $1"; exit 77; }
[ "$(id -u)" = 0 ] || skip "needs root"
command -v ip >/dev/null || skip "needs iproute2"
work=$(mktemp -d)
one=mixlora-one-$$ two=mixlora-two-$$ limit=5 most=1200 failed=0
ip netns add "$one" 2>/dev/null || { rmdir "$work"; skip "may not make a network namespace"; }
finish() {
  for space in "$one" "$two"; do
    for process in $(ip netns pids "$space" 2>/dev/null); do kill -9 "$process" 2>/dev/null; done
    ip netns del "$space" 2>/dev/null
  done
  rm -rf "$work"
}
trap finish EXIT
ip netns add "$two"
ip link add cable netns "$one" type veth peer name cable netns "$two"
for machine in 1 2; do
  space=$([ $machine = 1 ] && echo "$one" || echo "$two")
  ip -n "$space" addr add 10.77.0.$machine/24 dev cable
  ip -n "$space" link set lo up
  ip -n "$space" link set cable up
done

# What a launcher calls instead of ssh: options, a machine, a command. A machine has a name of its own, by which MPI knows it.
cat >"$work/on" <<END
#!/bin/sh
while case \$1 in -*) true ;; *) false ;; esac; do shift; done
case \$1 in 10.77.0.1) space=$one name=one ;; *) space=$two name=two ;; esac
shift
exec ip netns exec \$space unshare -u sh -c 'hostname "\$0"; eval "\$*"' \$name "\$@"
END
# A rank, whose last words would not pass a cable that is cut.
cat >"$work/rank" <<END
#!/bin/sh
exec "$program" "\$@" 2>"$work/said-\${OMPI_COMM_WORLD_RANK:-\$PMI_RANK}"
END
chmod +x "$work/on" "$work/rank"

limited() {  # a command that ends by itself, in any case after $most seconds
  timeout -k 10 $most "$@"
  local status=$?
  [ $status != 124 ] && [ $status != 137 ] || echo "no end after $most s: $*" >&2
  return $status
}
launcher() {  # kind arguments…
  local kind=$1
  shift
  case $kind in
    "Open MPI")
      limited "$work/on" 10.77.0.1 "$openmpi --allow-run-as-root --bind-to none --mca plm_rsh_agent $work/on --mca btl tcp,self \
        --mca btl_tcp_if_include cable --mca oob_tcp_if_include cable --host 10.77.0.1:1,10.77.0.2:1 $work/rank $*" ;;
    MPICH)  # its shared memory is that of the kernel, which both machines have here
      limited "$work/on" 10.77.0.1 "UCX_TLS=tcp,self UCX_NET_DEVICES=cable $mpich -launcher ssh -launcher-exec $work/on -iface cable \
        -hosts 10.77.0.1,10.77.0.2 -ppn 1 -n 2 $work/rank $*" ;;
  esac
}
find_launcher() {  # word of its version, its names
  local word=$1 name
  shift
  for name in "$@"; do
    if command -v "$name" >/dev/null && "$name" --version 2>&1 | grep -q "$word"; then command -v "$name"; return; fi
  done
}
openmpi=$(find_launcher "Open MPI\|OpenRTE" mpirun.openmpi mpirun)
mpich=$(find_launcher HYDRA mpirun.mpich mpirun)
[ -n "$openmpi$mpich" ] || skip "needs Open MPI or MPICH"

limited "$program" demo --steps 1 --out "$work/demo" --quiet >/dev/null 2>&1 || { echo "the demo fails" >&2; exit 1; }
arguments() {  # folder, more
  echo "train --model $work/demo/base --data $work/demo/data/train.jsonl --out $work/$1 --steps $steps --batch 16 --accumulate 8 \
    --rank 8 --dropout 0.05 --threads 1 --save-every 4 --keep 100 --quiet ${2:-}"
}
same() {  # folder: the files of the unbroken run of one process
  local file
  for file in adapter_model.safetensors checkpoint-$steps/optimizer.safetensors loss.svg experts.svg; do
    cmp -s "$work/whole/$file" "$work/$1/$file" || { echo "$1: another $file"; return 1; }
  done
}
say() {  # what, whether it held
  if [ "$2" = 0 ]; then echo "held    $1"; else echo "FAILED  $1"; failed=1; fi
}

steps=60
# shellcheck disable=SC2046  # words
limited "$program" $(arguments whole) >/dev/null || exit 1
for kind in "Open MPI" MPICH; do
  case $kind in "Open MPI") [ -n "$openmpi" ] || continue ;; MPICH) [ -n "$mpich" ] || continue ;; esac
  short=${kind// /-}
  before=$(ip netns exec "$two" cat /sys/class/net/cable/statistics/tx_bytes)
  launcher "$kind" "$(arguments "$short-whole")" >"$work/printed" 2>&1
  status=$?
  sent=$(($(ip netns exec "$two" cat /sys/class/net/cable/statistics/tx_bytes) - before))
  if [ $status = 0 ]; then same "$short-whole"; status=$?; else echo "status $status"; cat "$work/printed" "$work"/said-*; fi
  say "$kind, whole: the files of one process; the second machine sent $sent bytes ($(tail -n 1 "$work/printed"))" $status

  launcher "$kind" "$(arguments "$short-cut" "--rank-timeout $limit")" >"$work/printed" 2>&1 &
  job=$!
  until [ -d "$work/$short-cut/checkpoint-8" ] || ! kill -0 $job 2>/dev/null; do sleep 0.05; done
  ip -n "$one" link set cable down
  start=$SECONDS
  running() { for space in "$one" "$two"; do for process in $(ip netns pids "$space"); do
    [ "$(readlink "/proc/$process/exe")" = "$program" ] && echo "$process"; done; done; }
  while [ -n "$(running)" ] && [ $((SECONDS - start)) -lt 60 ]; do sleep 0.1; done
  seconds=$((SECONDS - start))
  for rank in 0 1; do
    other=$([ $rank = 0 ] && echo "rank 1 (process [0-9]* on two)" || echo "rank 0 (process [0-9]* on one)")
    grep -q "^error: rank $rank of 2 waited $limit s (--rank-timeout) for $other" "$work/said-$rank"
    held=$?
    say "$kind, cut: rank $rank ended within $seconds s: $(tail -n 1 "$work/said-$rank")" $held
  done
  [ $seconds -le $((limit + 5)) ]
  say "$kind, cut: both had ended after $seconds s, at most $((limit + 5))" $?
  for space in "$one" "$two"; do for process in $(ip netns pids "$space"); do kill -9 "$process" 2>/dev/null; done; done
  wait $job 2>/dev/null
  ip -n "$one" link set cable up
  newest=$(cd "$work/$short-cut" && ls -d checkpoint-* | sed s/checkpoint-// | sort -n | tail -n 1)
  # shellcheck disable=SC2046
  limited "$program" $(arguments "$short-cut" --resume) >/dev/null
  same "$short-cut"
  say "$kind, cut: one process went on from step $newest of $steps to the same bytes" $?
done
exit $failed
