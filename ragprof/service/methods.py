"""`trace_method`: a span around any function, whatever kind of function it is."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from opentelemetry import trace
from opentelemetry.trace import Span, Status, StatusCode

P = ParamSpec("P")
R = TypeVar("R")

tracer = trace.get_tracer("ragprof.service")


def trace_method(span_name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Run a function in its own span, named `span_name` or `module.qualname`.

    Works on sync functions, coroutine functions, generators and async generators (their span
    lasts from the first item asked for to the end). Sets `function.name`, `function.module` and
    the conventional `code.function.name`; an exception is recorded and is the span's status.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = span_name or f"{function.__module__}.{function.__qualname__}"
        attributes = {
            "function.name": function.__qualname__,
            "function.module": function.__module__,
            "code.function.name": f"{function.__module__}.{function.__qualname__}",
        }
        if inspect.isasyncgenfunction(function):
            wrap = _async_generator
        elif inspect.isgeneratorfunction(function):
            wrap = _generator
        elif inspect.iscoroutinefunction(function):
            wrap = _coroutine
        else:
            wrap = _call
        traced: Callable[P, R] = functools.wraps(function)(wrap(function, name, attributes))
        return traced

    return decorate


def _call(function: Callable[..., Any], name: str, attributes: dict[str, str]) -> Any:
    def traced(*args: Any, **kwargs: Any) -> Any:
        with tracer.start_as_current_span(name, attributes=attributes):
            return function(*args, **kwargs)

    return traced


def _coroutine(function: Callable[..., Any], name: str, attributes: dict[str, str]) -> Any:
    async def traced(*args: Any, **kwargs: Any) -> Any:
        with tracer.start_as_current_span(name, attributes=attributes):
            return await function(*args, **kwargs)

    return traced


# The span of a generator is current while the generator runs, not while its consumer does: a
# context attached across a yield would be detached in another one. What the consumer sends or
# throws in arrives inside, as without the decorator.


def _generator(function: Callable[..., Any], name: str, attributes: dict[str, str]) -> Any:
    def traced(*args: Any, **kwargs: Any) -> Any:
        with _lasting(name, attributes) as span:
            items = function(*args, **kwargs)
            step, value = items.send, None
            while True:
                with _inside(span):
                    try:
                        item = step(value)
                    except StopIteration as stop:
                        return stop.value
                try:
                    step, value = items.send, (yield item)
                except GeneratorExit:
                    with _inside(span):
                        items.close()
                    raise
                except BaseException as error:  # noqa: BLE001  # belongs to the generator
                    step, value = items.throw, error

    return traced


def _async_generator(function: Callable[..., Any], name: str, attributes: dict[str, str]) -> Any:
    async def traced(*args: Any, **kwargs: Any) -> Any:
        with _lasting(name, attributes) as span:
            items = function(*args, **kwargs)
            step, value = items.asend, None
            while True:
                with _inside(span):
                    try:
                        item = await step(value)
                    except StopAsyncIteration:
                        return
                try:
                    step, value = items.asend, (yield item)
                except GeneratorExit:
                    with _inside(span):
                        await items.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001  # belongs to the generator
                    step, value = items.athrow, error

    return traced


@contextmanager
def _lasting(name: str, attributes: dict[str, str]) -> Iterator[Span]:
    """A span that is not current, and that knows of the exception that ends it."""
    span = tracer.start_span(name, attributes=attributes)
    try:
        yield span
    except Exception as error:
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        raise
    finally:
        span.end()


@contextmanager
def _inside(span: Span) -> Iterator[None]:
    with trace.use_span(span, record_exception=False, set_status_on_exception=False):
        yield
