#!/bin/sh
# Records the sample files anew, each by the tool whose format it has. Not part of the tests.
# Usage: record.sh FOLDER, with py-spy, pyinstrument, austin (4.0 and, as austin3, 3.7),
# mojo-compress, memray, viztracer, perf, samply, go, firefox-esr and inferno on the PATH.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?folder for the files}
mkdir -p "$out" /srv/shop
out=$(cd "$out" && pwd)
cp "$here"/programs/* /srv/shop/
cd /srv/shop

for format in raw speedscope chrometrace; do
  py-spy record --rate 50 --threads --full-filenames --format "$format" \
    --output "$out/pyspy.$format" -- python3 shop.py 1
done
python3 still.py 20 &
sleep 2
for format in raw speedscope chrometrace; do
  py-spy record --rate 50 --threads --idle --full-filenames --duration 2 --format "$format" \
    --output "$out/pyspy_still.$format" --pid $!
done
py-spy dump --json --pid $! >"$out/pyspy.dump.json"
kill $!

python3 -m pyinstrument -i 0.02 -r pyisession -o "$out/pyinstrument.pyisession" shop.py 1
for format in json speedscope pstats; do
  python3 -m pyinstrument --load "$out/pyinstrument.pyisession" --show-all -r "$format" -o "$out/pyinstrument.$format"
done
python3 -m cProfile -o "$out/cprofile.pstats" shop.py 0.2

austin3 -i 20ms -o "$out/austin.txt" python3 shop.py 1
austin3 -f -i 40ms -o "$out/austin_full.txt" python3 shop.py 1
austin -i 20ms -o "$out/austin_3.mojo" python3 shop.py 1
austin -f -i 40ms -o "$out/austin_full_3.mojo" python3 shop.py 1
mojo-compress "$out/austin_3.mojo" "$out/austin_4.mojo"

rm -f memory.bin
python3 -m memray run -q -o memory.bin memory.py
for format in csv gprof2dot speedscope; do
  python3 -m memray transform -f -o "$out/memray.$format" "$format" memory.bin
done

viztracer --quiet --max_stack_depth 3 -o "$out/viztracer.json" memory.py

perf record -q -e cpu-clock -F 50 -g -o shop.perf.data python3 shop.py 1
perf script -i shop.perf.data >"$out/perf.txt"
samply import --save-only -o "$out/samply.json" shop.perf.data
inferno-collapse-perf <"$out/perf.txt" >"$out/inferno.folded"
sed 's/ \([0-9]*\)$/ 1\1/' "$out/inferno.folded" | sed 1d >later.folded
inferno-diff-folded "$out/inferno.folded" later.folded >"$out/inferno_diff.folded"

go build -trimpath -o shop main.go
./shop "$out/go_cpu.pb.gz" "$out/go_heap.pb.gz"

profile=$(mktemp -d)
MOZ_PROFILER_STARTUP=1 MOZ_PROFILER_STARTUP_INTERVAL=20 MOZ_PROFILER_STARTUP_FEATURES=js,stackwalk \
  MOZ_PROFILER_STARTUP_FILTERS=GeckoMain MOZ_PROFILER_SHUTDOWN="$PWD/gecko.json" \
  firefox-esr --headless --no-remote --profile "$profile" --screenshot page.png file:///srv/shop/page.html
python3 "$here/only_content.py" gecko.json "$out/gecko.json"
