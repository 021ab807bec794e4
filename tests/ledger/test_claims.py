"""Idempotency keys in the ledger: a key is claimed with the hold, its answer is kept with the settlement."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.audit import audit
from ledger.commands import PlaceHold, Settle, Void
from ledger.model import KEPT_FOR, Claim
from ledger.outcomes import Ended, Held, Refused
from tests.ledger.running import HOUR, NOON, Clock, Gate, held, in_one_batch, opened, running, settled, voided

KEY, OTHER = Claim(b"k" * 32, b"b" * 32), Claim(b"o" * 32, b"b" * 32)


def claiming(hold_id: int, claim: Claim = KEY, amount: int = 10, account_id: int = 1) -> PlaceHold:
    return replace(held(account_id, hold_id, amount), claim=claim)


def answered(hold_id: int, answer: bytes | None, amount: int = 4) -> Settle:
    return replace(settled(1, hold_id, amount), answer=answer)


def kept(path: str) -> int:
    """How many claims are in the file."""
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT COUNT(*) FROM ledger_claim").fetchone()
    return int(count)


async def test_a_claimed_key_lets_no_second_hold_pass(tmp_path: Path) -> None:
    """Not while the call runs, and not when it was answered; the refusal says which call has it."""
    async with running(str(tmp_path / "l.db"), Clock()) as ledger:
        await opened(ledger, 100)
        assert isinstance(await ledger.hold(claiming(1)), Held)
        for body in (KEY.body, b"x" * 32):
            refused = await ledger.hold(claiming(2, Claim(KEY.key, body)))
            assert isinstance(refused, Refused) and refused.claimed is not None
            assert (refused.reason, refused.claimed.claim, refused.claimed.hold_id) == ("claimed", KEY, 1)
            assert not refused.claimed.answered
            assert await ledger.answered(1, KEY.key) == (refused.claimed, None)
        assert isinstance(await ledger.hold(claiming(3, OTHER)), Held)
        ended = await ledger.end(answered(1, b"the answer"))
        assert isinstance(ended, Ended)
        refused = await ledger.hold(claiming(4))
        assert isinstance(refused, Refused) and refused.claimed is not None and refused.claimed.answered
        assert await ledger.answered(1, KEY.key) == (refused.claimed, b"the answer")
        assert (refused.claimed.charged, refused.claimed.available) == (ended.charged, ended.available) == (4, 86)
        # Another account's key of that name is another key.
        await ledger.open_account(2)
        assert isinstance(await ledger.hold(claiming(5, amount=0, account_id=2)), Held)


@pytest.mark.parametrize("end", [voided(1, 1), answered(1, None), Void(1, 1, b"{}", orphaned=True)])
async def test_a_call_that_came_to_nothing_frees_its_key(tmp_path: Path, end: Settle | Void) -> None:
    """Voided, broken off with a charge, or orphaned."""
    path = str(tmp_path / "l.db")
    async with running(path, Clock()) as ledger:
        await opened(ledger, 100)
        await ledger.hold(claiming(1))
        await ledger.end(end)
        assert kept(path) == 0
        assert await ledger.answered(1, KEY.key) is None
        assert isinstance(await ledger.hold(claiming(2)), Held)
        # Ending the first again, even late, does not touch what the second has claimed.
        await ledger.end(answered(1, b"late"))
        found = await ledger.answered(1, KEY.key)
        assert found is not None and (found[0].hold_id, found[1]) == (2, None)
    assert audit(path).clean


async def test_an_answer_is_kept_for_a_day(tmp_path: Path) -> None:
    """To the microsecond, from when it was given; then the key is free, and after the next sweep the answer is gone."""
    path, clock = str(tmp_path / "l.db"), Clock()
    async with running(path, clock) as ledger:
        await opened(ledger, 100)
        await ledger.hold(claiming(1))
        clock.now += HOUR
        await ledger.end(answered(1, b"first"))
        clock.now += KEPT_FOR - 1
        assert isinstance(await ledger.hold(claiming(2)), Refused)
        assert await ledger.answered(1, KEY.key) is not None
        assert await ledger.forget_answers() == 0
        clock.now += 1
        assert await ledger.answered(1, KEY.key) is None
        assert kept(path) == 1
        assert isinstance(await ledger.hold(claiming(3)), Held)
        # A call that runs keeps its key, however long.
        clock.now += 3 * KEPT_FOR
        assert isinstance(await ledger.hold(claiming(4)), Refused)
        await ledger.end(answered(3, b"second"))
        clock.now += KEPT_FOR + 1
        for number in range(250):
            await ledger.hold(claiming(10 + number, Claim(number.to_bytes(32), KEY.body), 0))
            await ledger.end(answered(10 + number, b"", 0))
        assert kept(path) == 251
        assert await ledger.forget_answers() == 1
        clock.now += KEPT_FOR + 1
        assert await ledger.forget_answers() == 250
        assert kept(path) == 0
        # Long ones go a few at a time: others' commands come in between.
        for number in range(6):
            await ledger.hold(claiming(400 + number, Claim(bytes([number]) * 32, KEY.body), 0))
            await ledger.end(answered(400 + number, bytes(400_000), 0))
        clock.now += KEPT_FOR + 1
        assert await ledger.forget_answers() == 6


async def test_test_clocks_keep_answers_by_their_own_time(tmp_path: Path) -> None:
    """The sweep, which goes by the wall's, leaves theirs alone."""
    path, clock = str(tmp_path / "l.db"), Clock()
    async with running(path, clock) as ledger:
        then = await ledger.create_clock(NOON - 100 * KEPT_FOR)
        await ledger.open_account(1, clock=then)
        await ledger.hold(claiming(1, amount=0))
        await ledger.end(answered(1, b"old", 0))
        assert await ledger.forget_answers() == 0
        assert await ledger.answered(1, KEY.key) is not None
        await ledger.advance_clock(then, NOON - 99 * KEPT_FOR)
        assert await ledger.answered(1, KEY.key) is None


async def test_in_one_batch_the_first_has_the_key(tmp_path: Path) -> None:
    """Holds and ends of one key that are committed together come out as they would one after another."""
    gate = Gate()
    path = str(tmp_path / "l.db")
    async with running(path, Clock(), gate=gate) as ledger:
        await opened(ledger, 100)
        outcomes = await in_one_batch(
            ledger,
            gate,
            held(1, 1, 1),
            [claiming(2), claiming(3), voided(1, 2), claiming(4), answered(4, b"four"), claiming(5), answered(1, None)],
        )
        kinds = [type(outcome).__name__ for outcome in outcomes]
        assert kinds == ["Held", "Refused", "Ended", "Held", "Ended", "Refused", "Ended"]
        found = await ledger.answered(1, KEY.key)
        assert found is not None and (found[0].hold_id, found[1]) == (4, b"four")
    assert audit(path).clean


async def test_a_hundred_at_once_are_one(tmp_path: Path) -> None:
    """Of a hundred holds under one key one is placed."""
    async with running(str(tmp_path / "l.db"), Clock()) as ledger:
        await opened(ledger, 1000)
        outcomes = await asyncio.gather(*(ledger.hold(claiming(number)) for number in range(1, 101)))
        assert sum(isinstance(outcome, Held) for outcome in outcomes) == 1
        assert (await ledger.balance(1)).held == 10


async def test_what_died_frees_its_key_and_what_was_answered_keeps_it(tmp_path: Path) -> None:
    """Over a restart."""
    path = str(tmp_path / "l.db")
    async with running(path, Clock()) as ledger:
        await opened(ledger, 100)
        await ledger.hold(claiming(1))
        await ledger.end(answered(1, b"kept"))
        await ledger.hold(claiming(2, OTHER))
    async with running(path, Clock()) as ledger:
        found = await ledger.answered(1, KEY.key)
        assert found is not None and found[1] == b"kept"
        assert await ledger.answered(1, OTHER.key) is None
        assert (await ledger.balance(1)).held == 0
    assert audit(path).clean


@pytest.mark.parametrize("seed", range(5))
async def test_random_lives_of_keys(tmp_path: Path, seed: int) -> None:
    """Whatever is placed, ended, repeated and waited for: a key has at most one call, and the answer is that call's."""
    choose, clock, path = random.Random(seed), Clock(), str(tmp_path / "l.db")
    model: dict[int, tuple[int, int, bytes | None]] = {}
    open_holds: dict[int, int] = {}
    async with running(path, clock) as ledger:
        await opened(ledger, 10**6)
        for hold_id in range(1, 300):
            clock.now += choose.choice((1, HOUR, 12 * HOUR))
            for key in [
                key for key, (_, at, answer) in model.items() if answer is not None and at + KEPT_FOR <= clock.now
            ]:
                del model[key]
            key = choose.randrange(4)
            outcome = await ledger.hold(claiming(hold_id, Claim(bytes([key]) * 32, KEY.body)))
            assert isinstance(outcome, Refused if key in model else Held)
            if isinstance(outcome, Held):
                model[key] = (hold_id, clock.now, None)
                open_holds[hold_id] = key
            if open_holds and choose.random() < 0.5:
                ending = choose.choice(list(open_holds))
                key = open_holds.pop(ending)
                answer = choose.choice((None, b"", b"answer %d" % ending))
                await ledger.end(answered(ending, answer) if choose.random() < 0.8 else voided(1, ending))
                found = await ledger.answered(1, bytes([key]) * 32)
                if found is None:
                    del model[key]
                else:
                    assert (found[0].hold_id, found[1]) == (ending, answer)
                    model[key] = (ending, clock.now, answer)
            for key in range(4):
                found = await ledger.answered(1, bytes([key]) * 32)
                shown = None if found is None else (found[0].hold_id, found[0].at, found[1])
                assert shown == model.get(key)
    assert audit(path).clean
