"""The faults by name, each with its truth."""

from __future__ import annotations

from ragprof.demo.faults import computing, data, machine, waiting
from ragprof.demo.faults.fault import Fault, FaultError, Truth, unchanged

HERE = "ragprof.demo.faults"
NO_CPU = ("cgroup.cpu.throttled_time", "process.cpu.wait_time", "system.cpu")

DOWNSTREAM = Truth(
    "http",
    "downstream",
    (
        "ragprof.demo.reference:Shelf.fetch",
        "ragprof.demo.reference:create_app.<locals>.definitions",
        "ragprof.demo.service:fetch_definitions",
    ),
    resource="rag-reference",
    service="rag-reference",
)

LOUD = (
    Fault(
        "blocking_call",
        "a synchronous rate limiter blocks the event loop before generation",
        waiting.blocking_call,
        Truth(
            "generate",
            "blocked_loop",
            (
                f"{HERE}.waiting:RateLimiter.acquire",
                f"{HERE}.waiting:blocking_call.<locals>.generate_limited",
            ),
            resource="event_loop",
        ),
        seams=("generate",),
    ),
    Fault(
        "padded_batch",
        "the reranker pads its batch to the longest passage",
        computing.padded_batch,
        Truth("rerank", "cpu", (f"{HERE}.computing:score_padded_batch",)),
        seams=("rerank",),
    ),
    Fault(
        "n_plus_one",
        "passages are loaded one by one through the ORM",
        data.n_plus_one,
        Truth(
            "retrieve",
            "extra_calls",
            (
                f"{HERE}.data:load_passages_one_by_one",
                "ragprof.demo.store:passage",
                f"{HERE}.data:n_plus_one.<locals>.passages",
            ),
            resource="rag",
        ),
        seams=("db",),
    ),
    Fault(
        "pool_of_one",
        "the database connection pool holds one connection",
        data.pool_of_one,
        Truth("database", "pool_wait", ("ragprof.demo.store:Database.session",), resource="rag"),
        load="brisk",
        healthy_load="brisk",
        seams=("pool",),
    ),
    Fault(
        "slow_downstream",
        "the service rag-reference answers 120 ms later",
        waiting.slow_downstream,
        DOWNSTREAM,
        seams=("http",),
    ),
    Fault(
        "heavier_traffic",
        "people ask longer questions and want more results; the service is unchanged",
        unchanged,
        Truth("request", "load", resource="query.length", resources=("query.max_results",)),
        load="heavy",
    ),
    Fault(
        "cache_off",
        "the cache of answers is switched off; people ask few questions again and again",
        data.cache_off,
        Truth("cache", "cache_miss", resource="cache.hit"),
        load="popular",
        healthy_load="popular",
        seams=("cache",),
    ),
    Fault(
        "encoder_lock",
        "a global lock around the encoder, which a job holds while it stores documents",
        waiting.encoder_lock,
        Truth(
            "embed",
            "lock_wait",
            (f"{HERE}.waiting:SharedEncoder.embed", "ragprof.demo.service:_embed"),
        ),
        seams=("embed",),
    ),
    Fault(
        "quadratic_merge",
        "the rankings of a question's words are merged by scanning a list for each result",
        computing.quadratic_merge,
        Truth(
            "retrieve",
            "cpu",
            (
                f"{HERE}.computing:merge_by_scanning",
                f"{HERE}.computing:quadratic_merge.<locals>.search_each_word",
            ),
        ),
        seams=("search",),
    ),
    Fault(
        "retry_storm",
        "rag-reference refuses two of three calls, and the client tries again with back-off",
        waiting.retry_storm,
        Truth(
            "http",
            "retry",
            (
                f"{HERE}.waiting:Retrying.back_off",
                f"{HERE}.waiting:retry_storm.<locals>.fetch_again_and_again",
            ),
            resource="rag-reference",
        ),
        seams=("http",),
    ),
    Fault(
        "row_by_row",
        "the reranker multiplies token by token instead of matrices",
        computing.row_by_row,
        Truth("rerank", "cpu", (f"{HERE}.computing:score_row_by_row",)),
        seams=("rerank",),
    ),
    Fault(
        "log_flood",
        "each answer writes hundreds of log lines in the event loop",
        computing.log_flood,
        Truth(
            "generate",
            "cpu",
            (
                f"{HERE}.computing:explain",
                f"{HERE}.computing:log_flood.<locals>.generate_explained",
            ),
        ),
        seams=("generate",),
    ),
)

QUIET = (
    Fault(
        "one_in_twenty",
        "one request in twenty waits 0.4 s for statistics to be written",
        waiting.one_in_twenty,
        Truth(
            "retrieve",
            "io",
            (
                f"{HERE}.waiting:SearchStatistics.flush",
                f"{HERE}.waiting:SearchStatistics.count",
            ),
        ),
        seams=("search",),
        seconds=90,
    ),
    Fault(
        "two_at_once",
        "each search asks a remote dictionary, and rag-reference becomes slower by as much",
        waiting.two_at_once,
        Truth(
            "retrieve",
            "io",
            (
                f"{HERE}.waiting:look_up_synonyms",
                f"{HERE}.waiting:two_at_once.<locals>.search_with_synonyms",
            ),
            share=0.5,
            also=(
                Truth(
                    "http",
                    "downstream",
                    DOWNSTREAM.functions,
                    resource="rag-reference",
                    service="rag-reference",
                    share=0.5,
                ),
            ),
        ),
        seams=("search", "http"),
    ),
    Fault(
        "long_standing",
        "the reranker multiplies token by token, and did so before: nothing changes",
        computing.row_by_row,
        None,
        seams=("rerank",),
        standing=True,
    ),
    Fault(
        "healthy_deploy",
        "a deploy that changes nothing, and soon after rag-reference becomes slower by itself",
        waiting.slow_downstream,
        DOWNSTREAM,
        seams=("http",),
        deploy="service.version 1.0.0 -> 1.0.1",
    ),
    Fault(
        "growing_cache",
        "a history of answers grows, and the garbage collector walks it with each answer",
        data.growing_cache,
        Truth("generate", "gc", resource="python.gc.pause"),
        seams=("generate",),
    ),
    Fault(
        "cpu_limit",
        "the CPU limit of rag-api is lowered to little more than it uses",
        unchanged,
        Truth("request", "throttled", resource=NO_CPU[0], resources=NO_CPU),
        beside=machine.cpu_limit,
    ),
    Fault(
        "busy_neighbour",
        "other programs compute on every core of the machine",
        unchanged,
        Truth("request", "throttled", resource=NO_CPU[1], resources=NO_CPU),
        beside=machine.busy_neighbour,
    ),
)

LOADS = (
    Fault(
        "longer_questions",
        "people ask longer questions; the service is unchanged",
        unchanged,
        Truth("request", "load", resource="query.length"),
        load="long",
    ),
    Fault(
        "more_results",
        "people want more results; the service is unchanged",
        unchanged,
        Truth("request", "load", resource="query.max_results"),
        load="wide",
    ),
    Fault(
        "colder_cache",
        "people no longer ask what was asked before; the service is unchanged",
        unchanged,
        Truth("cache", "cache_miss", resource="cache.hit"),
        load="new",
        healthy_load="repeated",
    ),
    Fault(
        "more_traffic",
        "three times as many requests; the service is unchanged",
        unchanged,
        Truth("request", "load", resource="requests per second"),
        load="busy",
    ),
)

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (Fault("none", "nothing changes", unchanged, None), *LOUD, *QUIET, *LOADS)
}


def named(name: str) -> Fault:
    """A fault by name; FaultError names those that exist."""
    try:
        return FAULTS[name]
    except KeyError:
        raise FaultError(
            f"There is no fault {name!r}; choose one of {', '.join(FAULTS)}."
        ) from None
