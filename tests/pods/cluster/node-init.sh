#!/bin/sh
# node-init.sh STATE PAUSE: becomes pid 1 of the node, in its own pid, mount, network, uts and ipc
# namespaces. Nothing that it mounts or sets is seen outside.
set -e
state=$1
mount --make-rprivate /
mount --make-rshared /
mount -t proc proc /proc
hostname node1
ip link set lo up
# The node's address: a bridge that exists only in this network namespace.
ip link add cni0 type bridge
ip addr add 10.90.0.1/24 dev cni0
ip link set cni0 up
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/sysctl "$state/log/pods"
# The kubelet writes under /var/lib and /var/log whatever its own folder is.
mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir -p /var/lib/kubelet
mount --bind "$state/log" /var/log
# The kubelet sets these for the whole kernel: it gets files instead.
for file in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
  kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  copy=/run/sysctl/$(echo $file | tr / _)
  cat /proc/sys/$file >"$copy"
  mount --bind "$copy" /proc/sys/$file
done
exec "$2"
