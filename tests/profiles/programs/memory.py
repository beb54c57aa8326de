"""Allocations of two functions, for a memory profiler."""


def cache(entries: int) -> dict[int, bytes]:
    return {number: bytes(2_000) for number in range(entries)}


def table(rows: int) -> list[bytearray]:
    return [bytearray(10_000) for _ in range(rows)]


if __name__ == "__main__":
    kept = cache(500), table(300)
