"""Ending a call's waiting from outside: at the right moment, with the right reason, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest

from proxy.interruption import CLIENT_LEFT, DRAINED, TIMED_OUT, Interrupted, Interruptible
from tests.units.virtual_loop import run


def started() -> Interruptible:
    """Make one for the running task."""
    return Interruptible(asyncio.get_running_loop())


def now() -> float:
    return asyncio.get_running_loop().time()


def at(seconds: float, do: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_later(seconds, do)


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def for_five_seconds(block: AbstractContextManager[None]) -> None:
    async with asyncio.timeout(5):
        with block:
            await for_ever()


async def failing_when_cancelled() -> None:
    try:
        await for_ever()
    except asyncio.CancelledError:
        raise LookupError from None


async def interrupted(life: Interruptible) -> tuple[str, float]:
    """Wait in a block until it is ended; returns the reason and when."""
    with pytest.raises(Interrupted) as caught, life:
        await for_ever()
    return caught.value.reason, round(now(), 3)


def test_resumed() -> None:
    """After time ran out it may wait on; what came meanwhile ends that, and no other reason is forgotten."""

    async def main() -> None:
        life = started()
        for _ in range(2):
            life.within(3, 9)
            assert (await interrupted(life))[0] == TIMED_OUT
            life.resume()
        assert (life.reason, now()) == (None, 6.0)
        life.within(3, 9)
        assert await interrupted(life) == (TIMED_OUT, 9.0)
        life.interrupt(DRAINED)
        life.resume()
        assert await interrupted(life) == (DRAINED, 9.0)
        life.resume()
        assert life.reason == DRAINED

    run(main())


def test_inside_a_block() -> None:
    """An interruption ends the wait at once, and the task goes on as if never cancelled."""

    async def main() -> None:
        life = started()
        at(3, lambda: life.interrupt(CLIENT_LEFT))
        assert await interrupted(life) == (CLIENT_LEFT, 3.0)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(1)
        assert round(now(), 3) == 4.0

    run(main())


def test_outside_a_block() -> None:
    """What is not in a block runs on undisturbed; the next block is not entered."""

    async def main() -> None:
        life = started()
        at(1, lambda: life.interrupt(DRAINED))
        await asyncio.sleep(2)
        assert life.reason == DRAINED
        entered = False
        with pytest.raises(Interrupted, match=DRAINED), life:
            entered = True
        assert not entered

    run(main())


def test_after_a_block() -> None:
    """A block that has ended is not interrupted any more."""

    async def main() -> None:
        life = started()
        with life:
            await asyncio.sleep(1)
        life.interrupt(CLIENT_LEFT)
        await asyncio.sleep(1)

    run(main())


def test_in_the_tick_in_which_the_wait_ends() -> None:
    """An interruption in the very tick that the wait ends in is raised by this block, and nothing is left over."""

    async def main() -> None:
        life = started()
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def both() -> None:
            answer.set_result(1)
            life.interrupt(CLIENT_LEFT)

        at(1, both)
        with pytest.raises(Interrupted), life:
            await answer
        await asyncio.sleep(1)
        assert round(now(), 3) == 2.0

    run(main())


def test_first_reason_stays() -> None:
    """Of several interruptions the first gives the reason, and later blocks give the same."""

    async def main() -> None:
        life = started()

        def twice() -> None:
            life.interrupt(CLIENT_LEFT)
            life.interrupt(DRAINED)

        at(1, twice)
        assert (await interrupted(life))[0] == CLIENT_LEFT
        life.interrupt(TIMED_OUT)
        with pytest.raises(Interrupted, match=CLIENT_LEFT), life:
            pass

    run(main())


def test_deadline() -> None:
    """A wait ends when its seconds are over."""

    async def main() -> None:
        life = started()
        life.within(10)
        assert await interrupted(life) == (TIMED_OUT, 10.0)

    run(main())


def test_deadline_moves() -> None:
    """Every new deadline replaces the last, whether it is later or sooner."""

    async def main() -> None:
        life = started()
        life.within(10)
        at(9, lambda: life.within(10))
        at(18, lambda: life.within(10))
        at(20, lambda: life.within(1))
        assert await interrupted(life) == (TIMED_OUT, 21.0)

    run(main())


def test_total_cannot_be_put_off() -> None:
    """However often the deadline is moved on, the total ends the wait."""

    async def main() -> None:
        life = started()
        life.within(10, total=25)
        for second in range(1, 40):
            at(second, lambda: life.within(10))
        assert await interrupted(life) == (TIMED_OUT, 25.0)

    run(main())


def test_total_ahead_of_the_first_deadline() -> None:
    """A total that is shorter than the deadline ends the wait first."""

    async def main() -> None:
        life = started()
        life.within(600, total=5)
        assert await interrupted(life) == (TIMED_OUT, 5.0)

    run(main())


def test_deadline_between_blocks() -> None:
    """A deadline that passes outside any block is raised by the next one."""

    async def main() -> None:
        life = started()
        life.within(2)
        await asyncio.sleep(5)
        with pytest.raises(Interrupted, match=TIMED_OUT), life:
            pass

    run(main())


def test_a_reader_that_stopped() -> None:
    """A deadline that passes while bytes wait for the client counts as the client's leaving."""

    async def main() -> None:
        life = started()
        life.within(2)
        life.sending = True
        assert await interrupted(life) == (CLIENT_LEFT, 2.0)

    run(main())


def test_closed() -> None:
    """A closed life has no deadline any more, and can be closed again."""

    async def main() -> None:
        life = started()
        life.within(2, total=3)
        life.close()
        life.close()
        with life:
            await asyncio.sleep(10)
        assert life.reason is None

    run(main())


def test_cancelled_from_outside() -> None:
    """A cancellation that is nobody's interruption stays a cancellation."""

    async def main() -> None:
        async def call() -> None:
            with started():
                await for_ever()

        task = asyncio.create_task(call())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


@pytest.mark.parametrize("interrupted_first", [True, False])
def test_cancelled_and_interrupted(interrupted_first: bool) -> None:
    """A call that is interrupted and cancelled at the same time is cancelled."""

    async def main() -> None:
        lives: list[Interruptible] = []

        async def call() -> None:
            lives.append(started())
            with lives[0]:
                await for_ever()

        task = asyncio.create_task(call())
        await asyncio.sleep(1)
        ends: list[Callable[[], object]] = [lambda: lives[0].interrupt(CLIENT_LEFT), task.cancel]
        for end in ends if interrupted_first else reversed(ends):
            end()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_a_failure_on_the_way_out() -> None:
    """A failure that the interruption provokes is not hidden by it; the next block still refuses."""

    async def main() -> None:
        life = started()
        at(1, lambda: life.interrupt(DRAINED))
        with pytest.raises(LookupError), life:
            await failing_when_cancelled()
        with pytest.raises(Interrupted, match=DRAINED), life:
            pass

    run(main())


def test_a_failure_of_its_own() -> None:
    """An exception in a block that nobody interrupted passes as it is."""

    async def main() -> None:
        with pytest.raises(LookupError), started():
            raise LookupError

    run(main())


def test_inside_a_timeout() -> None:
    """An interruption is not taken for the timeout that it stands in, nor the timeout for it."""

    async def main() -> None:
        life = started()
        at(1, lambda: life.interrupt(CLIENT_LEFT))
        with pytest.raises(Interrupted):
            await for_five_seconds(life)
        with pytest.raises(TimeoutError):
            await for_five_seconds(started())
        with pytest.raises(TimeoutError), started():
            await for_five_seconds(nullcontext())

    run(main())
