// A program whose CPU and heap profiles have labels, inlined functions and several value types.
package main

import (
	"context"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"time"
)

var kept [][]byte

func half(x float64) float64 { return x / 2 } // inlined

func price(until time.Time) float64 {
	total := 0.0
	for time.Now().Before(until) {
		for i := 1; i < 20000; i++ {
			total += half(1 / float64(i))
		}
	}
	return total
}

func cache(entries int) {
	for i := 0; i < entries; i++ {
		kept = append(kept, make([]byte, 4096))
	}
}

func main() {
	runtime.MemProfileRate = 4096
	cpu, _ := os.Create(os.Args[1])
	pprof.StartCPUProfile(cpu)
	for request := 0; request < 4; request++ {
		labels := pprof.Labels("span_id", "00000000000000a"+strconv.Itoa(request), "route", "/price")
		pprof.Do(context.Background(), labels, func(context.Context) {
			price(time.Now().Add(120 * time.Millisecond))
		})
	}
	pprof.StopCPUProfile()
	cpu.Close()
	cache(200)
	heap, _ := os.Create(os.Args[2])
	pprof.WriteHeapProfile(heap)
	heap.Close()
}
