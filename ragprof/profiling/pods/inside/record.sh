# record SOURCE PLACE TOKEN TARGET USER ENCODING WATCH PY-SPY-ARGUMENTS…
#   SOURCE    path of py-spy, or stdin:SIZE
#   PLACE     an existing folder; everything is kept in PLACE/ragprof-TOKEN and removed at the end
#   TARGET    PID, or CONTAINER-ID/ for its first Python process, or CONTAINER-ID/PID-IN-IT
#   USER      uid:gid that py-spy is to have, or nothing
#   ENCODING  raw: the profile on the standard output, messages on the standard error;
#             base64: all on the standard output, for a log
#   WATCH     yes: end early when a line or the end comes on the standard input; no: do not
source=$1 place=$2 token=$3 target=$4 user=$5 encoding=$6 watch=$7
shift 7
folder=$place/ragprof-$token
spy='' watcher=''
# The standard error stays open beside: containerd ends an attached input when it is closed.
[ "$encoding" = base64 ] && exec 4>&2 2>&1
exec 3<&0
say() { printf '@ragprof %s\n' "$*" >&2; }
fail() { say "failed $*"; exit 1; }
# Every child is waited for: one that is left falls to the container's first process, which may
# never reap it.
end_watcher() {
  [ -n "$watcher" ] || return
  [ -e "$folder/stopping" ] || kill "$watcher"
  wait "$watcher"
  watcher=''
} 2>/dev/null
clean() {
  [ -n "$spy" ] && { kill -KILL "$spy"; wait "$spy"; }
  end_watcher
  rm -rf "$folder"
} 2>/dev/null
trap clean EXIT
trap 'exit 130' INT TERM HUP PIPE

is_python() {
  case $(readlink "/proc/$1/exe" 2>/dev/null; tr '\000' '\n' 2>/dev/null <"/proc/$1/cmdline" | head -n 1) in
  *[Pp]ython*) return 0 ;;
  esac
  return 1
}
inner_pid() { # as it is in the innermost process namespace
  while read -r field numbers; do
    case $field in NSpid:) printf '%s' "${numbers##*[!0-9]}" ;; esac
  done <"/proc/$1/status"
} 2>/dev/null
find_target() {
  container=${target%%/*} wanted=${target#*/}
  for entry in $(cd /proc && printf '%s\n' [0-9]* | sort -n); do
    case $(cat "/proc/$entry/cgroup" 2>/dev/null) in *"$container"*) ;; *) continue ;; esac
    if [ -n "$wanted" ]; then [ "$(inner_pid "$entry")" = "$wanted" ]; else is_python "$entry"; fi &&
      { pid=$entry; return 0; }
  done
  return 1
}
owner() { # of a process: uid:gid
  while read -r field _ effective _; do
    case $field in Uid:) id=$effective ;; Gid:) printf '%s:%s' "$id" "$effective" ;; esac
  done <"/proc/$1/status"
} 2>/dev/null

may_trace() { # whether this process has CAP_SYS_PTRACE
  while read -r field mask; do
    case $field in CapEff:) return $((1 - (0x$mask >> 19 & 1))) ;; esac
  done </proc/self/status
  return 1
}
check_workers() { # py-spy passes over children that it may not read, without a word
  may_trace && return
  whose=$(owner "$pid") denied=''
  for entry in /proc/[0-9]*; do
    worker=${entry#/proc/}
    while read -r field parent _; do
      [ "$field" = PPid: ] && [ "$parent" = "$pid" ] && is_python "$worker" &&
        [ "$(owner "$worker")" != "$whose" ] && denied=$worker
    done 2>/dev/null <"$entry/status"
  done
  [ -z "$denied" ] ||
    fail "permission denied: its worker $denied runs as $(owner "$denied"), it as $whose"
}

umask 022
mkdir -m 755 "$folder" 2>/dev/null || fail "no folder can be made in $place"
case $source in
stdin:*)
  size=${source#stdin:}
  say ready
  limit=''
  timeout 5 true 2>/dev/null && limit='timeout 120' # whoever was to send it may be gone
  $limit head -c "$size" <&3 >"$folder/py-spy" || fail "py-spy could not be written to $folder"
  [ "$(wc -c <"$folder/py-spy")" -eq "$size" ] || fail "py-spy arrived incomplete in $folder"
  chmod 755 "$folder/py-spy"
  program=$folder/py-spy
  ;;
*) program=$source ;;
esac
case $target in
*/*) find_target || fail "its process is not seen from here" ;;
*) pid=$target ;;
esac
say "target $pid $(owner "$pid") self $(owner self)"
check_workers
as=''
if [ -n "$user" ]; then
  chown "$user" "$folder" || fail "the folder cannot be given to $user"
  if command -v setpriv >/dev/null; then
    as="setpriv --reuid=${user%:*} --regid=${user#*:} --clear-groups"
  else
    as="chroot --userspec=$user --groups= /"
  fi
fi

spy() {
  $as "$program" "$@" --pid "$pid" --output "$folder/profile" >"$folder/said" 2>&1 </dev/null 3<&- &
  spy=$!
  if [ "$watch" = yes ]; then
    # Again and again: a signal that comes before py-spy listens is lost.
    { read -r _ <&3; : >"$folder/stopping"; while kill -INT "$spy"; do sleep 1; done; } >/dev/null 2>&1 &
    watcher=$!
  fi
  say started
  wait "$spy"
  code=$?
  spy=''
  end_watcher
  cat "$folder/said" >&2
}
spy "$@"
if [ ! -s "$folder/profile" ]; then
  case $(cat "$folder/said") in
  *"suspend process"*)
    say nonblocking
    spy "$@" --nonblocking
    ;;
  esac
fi
say "code $code"
[ -s "$folder/profile" ] || exit 1
if [ "$encoding" = base64 ]; then
  { gzip -c "$folder/profile" 2>/dev/null || cat "$folder/profile"; } >"$folder/packed"
  say begin
  base64 "$folder/packed"
  say end
else
  say "bytes $(wc -c <"$folder/profile" | tr -d ' ')"
  cat "$folder/profile"
fi
