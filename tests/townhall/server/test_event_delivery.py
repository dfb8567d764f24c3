"""What is emitted between two passes reaches its queues in order, in one call; from other threads at once."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from townhall.server.event_delivery import EventDelivery


def in_a_loop(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def counted(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls that wake this loop, from now on."""
    calls, wake = list[Any](), loop.call_soon_threadsafe

    def call(*arguments: Any, **keywords: Any) -> Any:
        calls.append(arguments)
        return wake(*arguments, **keywords)

    monkeypatch.setattr(loop, "call_soon_threadsafe", call)
    return calls


def drained(queue: asyncio.Queue[Any]) -> list[Any]:
    return [queue.get_nowait() for _ in range(queue.qsize())]


def test_a_round_is_delivered_in_one_call_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        delivery, one, other = EventDelivery(), asyncio.Queue[Any](), asyncio.Queue[Any]()
        emit, emit_other = delivery.emitter(one), delivery.emitter(other)
        calls = counted(asyncio.get_running_loop(), monkeypatch)
        with delivery.keeping():
            emit(1), emit_other(2), emit(3)
            await asyncio.sleep(0)
            assert not calls and one.empty()
            delivery.deliver()
            emit(4)
        assert len(calls) == 2
        await asyncio.sleep(0)
        assert drained(one) == [1, 3, 4] and drained(other) == [2]

    in_a_loop(test)


def test_what_is_emitted_elsewhere_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """By another thread while one keeps, and outside of a round."""

    async def test() -> None:
        delivery, queue = EventDelivery(), asyncio.Queue[Any]()
        emit, loop = delivery.emitter(queue), asyncio.get_running_loop()
        with delivery.keeping():
            other = threading.Thread(target=emit, args=["from another thread"])
            other.start()
            await loop.run_in_executor(None, other.join)
            assert await queue.get() == "from another thread"
        emit("outside")
        assert await queue.get() == "outside"

    in_a_loop(test)


def test_an_error_keeps_nothing_back() -> None:
    async def test() -> None:
        delivery, queue = EventDelivery(), asyncio.Queue[Any]()
        emit = delivery.emitter(queue)
        with pytest.raises(ZeroDivisionError), delivery.keeping():
            emit("before")
            raise ZeroDivisionError
        assert await queue.get() == "before"

    in_a_loop(test)


def test_a_loop_that_has_ended_is_no_error() -> None:
    delivery, emits = EventDelivery(), list[Callable[[Any], None]]()

    async def test() -> None:
        emits.append(delivery.emitter(asyncio.Queue()))

    in_a_loop(test)
    emits[0]("too late")
    with delivery.keeping():
        emits[0]("too late as well")


def test_only_the_thread_that_keeps_hands_over() -> None:
    async def test() -> None:
        delivery, queue = EventDelivery(), asyncio.Queue[Any]()
        emit, loop = delivery.emitter(queue), asyncio.get_running_loop()
        with delivery.keeping():
            emit("kept")
            await loop.run_in_executor(None, delivery.deliver)
            await asyncio.sleep(0)
            assert queue.empty()
            delivery.deliver()
            loop.call_soon_threadsafe(queue.put_nowait, "over")
        await asyncio.sleep(0)
        assert drained(queue) == ["kept", "over"]

    in_a_loop(test)


def test_cores_are_offered_until_those_who_were_woken_have_had_their_turn() -> None:
    async def test() -> None:
        delivery, queue, order = EventDelivery(), asyncio.Queue[Any](), list[Any]()
        delivery.offer_cores = order.append

        async def send() -> None:
            while True:
                order.append(await queue.get())

        sender = asyncio.create_task(send())
        emit = delivery.emitter(queue)
        await asyncio.sleep(0)
        with delivery.keeping():
            emit("a word"), emit("another")
        for _ in range(5):
            await asyncio.sleep(0)
        assert order == [True, "a word", "another", False]
        sender.cancel()

    in_a_loop(test)
