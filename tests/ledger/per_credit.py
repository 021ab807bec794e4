"""What the rules say, at one item per credit: slow, and too plain to be wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import NamedTuple

from ledger.commands import Adjust, IssueGrant, PlaceHold, Refund, RunShare
from ledger.ids import renewal_id
from ledger.model import NEVER
from ledger.rules import Allowance, Plan
from tests.ledger.naive_calendar import date_in, dawn, following, latest
from tests.ledger.naive_plans import Row, longest, next_row, share, worth

ORDER = {"daily": 0, "bonus": 1, "subscription": 2, "paid": 3}


@dataclass(eq=False, slots=True)
class Credit:
    """One single credit. place: free, held, spent, lost, void, taken or repaid; gone: where it goes once released."""

    burn: tuple[int, int, bool, int, int]
    bucket: str
    effective_at: int
    expires_at: int
    place: str = "free"
    gone: str | None = None

    @property
    def lot(self) -> int:
        return self.burn[-1]

    def twin(self) -> Credit:
        return Credit(self.burn, self.bucket, self.effective_at, self.expires_at, self.place, self.gone)

    def burns(self, now: int) -> bool:
        return self.place == "free" and self.effective_at <= now < self.expires_at

    def come_back(self) -> None:
        """It is released, or refunded: it is free again unless its lot is gone."""
        self.place = self.gone or "free"


# What a hold pins, credit by credit; None is one on the overdraft.
Pinned = list[Credit | None]


class Given(NamedTuple):
    """What a plan gave just now."""

    lot: int
    bucket: str
    amount: int
    paid: bool
    starts: int
    ends: int


class Lot(NamedTuple):
    """What became of the credits of a lot: how many there were, are left, are held and are gone unspent."""

    bucket: str
    paid: bool
    starts: int
    ends: int
    granted: int
    left: int
    held: int
    lost: int


@dataclass(eq=False, slots=True)
class Window:
    """One period of a spend limit, which calls are placed in; another one is another object. label: None for ever."""

    label: date | None = None
    ends: int = NEVER


@dataclass(slots=True)
class Cap:
    """A spend limit; amount None: it was lifted."""

    amount: int | None
    per: str
    window: Window


@dataclass(slots=True)
class Run:
    """The calls of one operation in a run: an item for each credit that they cost, and that they were charged."""

    raw: list[int] = field(default_factory=list)
    charged: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Refusal:
    """Why a hold was not placed, and the figures."""

    reason: str
    needed: int
    available: int
    held: int
    debt: int
    affordable: int
    plan: str | None
    run: tuple[int, int] | None
    # The limit under which the least is left, by its scope.
    tightest: tuple[str, Cap] | None


@dataclass(slots=True)
class Model:
    """One account. own_limit: of its overdraft, None for the plan's."""

    plans: Mapping[str, Plan]
    own_limit: int | None
    zone: str = "UTC"
    now: int = 0
    status: str = "active"
    debt: int = 0
    credits: list[Credit] = field(default_factory=list)
    holds: dict[int, Pinned] = field(default_factory=dict)
    keys: dict[str, int] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    voided: set[int] = field(default_factory=set)
    # What paid for each call and is not refunded yet, in the order of the receipt, debt last; None is debt.
    paid: dict[int, Pinned] = field(default_factory=dict)
    plan: str | None = None
    # The plan that comes, and when.
    next_plan: tuple[str | None, int] | None = None
    rows: dict[str, Row] = field(default_factory=dict)
    # The lots that plans gave.
    given: set[int] = field(default_factory=set)
    caps: dict[str, Cap] = field(default_factory=dict)
    # The periods of spend limits that each call was placed in, by scope.
    under: dict[int, dict[str, Window]] = field(default_factory=dict)
    runs: dict[tuple[str, str], Run] = field(default_factory=dict)

    # -- time

    def pass_time(self, microseconds: int) -> None:
        self.now += microseconds
        for credit in self.credits:
            if credit.expires_at <= self.now and credit.gone is None:
                credit.gone = "lost"
                if credit.place == "free":
                    credit.place = "lost"

    def look(self) -> list[Given]:
        """What time alone does to plans: nothing, until somebody looks at the account."""
        if self.next_plan is not None and self.next_plan[1] <= self.now:
            self.go_on(self.next_plan[0])
        return [self.begin(allowance) for allowance in self.allowances() if not self.is_on(allowance.bucket)]

    def as_seen(self) -> Model:
        """What a reader sees, who changes nothing."""
        due = self.next_plan is not None and self.next_plan[1] <= self.now
        return self.later(self.now) if due or not all(self.is_on(a.bucket) for a in self.allowances()) else self

    def later(self, at: int) -> Model:
        """The account as it will be for who looks then, if nobody does before."""
        rows = {bucket: replace(row) for bucket, row in self.rows.items()}
        # Time takes no notice of calls, so that what they pin and paid need not be copied.
        page = replace(self, credits=[credit.twin() for credit in self.credits], rows=rows, given={*self.given})
        page.pass_time(at - self.now)
        page.look()
        return page

    # -- plans

    def allowances(self) -> tuple[Allowance, ...]:
        return () if self.plan is None or self.status == "closed" else self.plans[self.plan].allowances

    def is_on(self, bucket: str) -> bool:
        return bucket in self.rows and self.now < self.rows[bucket].ends

    def begin(self, allowance: Allowance) -> Given:
        """Begin the period that is on."""
        last = self.rows.get(allowance.bucket)
        place = len(self.rows) if last is None else last.place
        row = next_row(allowance, last, place, self.zone, self.now)
        self.rows[allowance.bucket] = row
        return self.give(allowance, renewal_id(row.starts, row.place), allowance.amount, row.starts)

    def give(self, allowance: Allowance, lot: int, amount: int, starts: int) -> Given:
        assert self.plan is not None
        paid, ends = self.plans[self.plan].paid, self.rows[allowance.bucket].ends
        self.add(lot, allowance.bucket, amount, ends, paid, starts)
        self.given.add(lot)
        return Given(lot, allowance.bucket, amount, paid, starts, ends)

    def go_on(self, name: str | None) -> None:
        """Be on another plan: allowances that the one before did not have are counted anew."""
        had = {allowance.bucket for allowance in self.plans[self.plan].allowances} if self.plan is not None else set()
        for allowance in self.plans[name].allowances if name is not None else ():
            if allowance.bucket in self.rows and allowance.bucket not in had:
                self.rows[allowance.bucket].since = None
        self.plan, self.next_plan = name, None

    def set_plan(self, name: str | None, lots: tuple[int, ...]) -> tuple[int, list[Given]]:
        """Returns when it comes and what it gives at once."""
        self.look()
        before, after = (None if plan is None else self.plans[plan] for plan in (self.plan, name))
        if name == self.plan:
            self.next_plan = None
            return self.now, []
        ends = max((self.rows[bucket].ends for bucket in longest(before) if bucket in self.rows), default=self.now)
        if worth(after) < worth(before) and ends > self.now:
            self.next_plan = (name, ends)
            return ends, []
        self.go_on(name)
        given = []
        for number, allowance in enumerate(after.allowances if after is not None else ()):
            if not self.is_on(allowance.bucket):
                given.append(self.begin(allowance))
                continue
            row = self.rows[allowance.bucket]
            more = share(allowance.amount - row.entitled, row, self.now) if row.every == allowance.every else 0
            if more:
                row.entitled = allowance.amount
                row.granted += more
                given.append(self.give(allowance, lots[number], more, self.now))
        return self.now, given

    def renewals(self) -> Iterator[int]:
        """When each allowance comes next, before and after a change of plan that is to come."""
        page = self.later(self.now)
        waiting = {allowance.bucket for allowance in page.allowances()}
        while True:
            ends = [row.ends for bucket, row in page.rows.items() if bucket in waiting]
            if page.next_plan is not None:
                ends.append(page.next_plan[1])
            if not ends:
                return
            plan, began, page = page.plan, page.now, page.later(min(ends))
            yield page.now
            if page.plan != plan:
                waiting = {allowance.bucket for allowance in page.allowances()}
            waiting = {bucket for bucket in waiting if bucket in page.rows and page.rows[bucket].starts <= began}

    # -- credits

    def limit(self) -> int:
        """How far the overdraft goes."""
        if self.own_limit is not None:
            return self.own_limit
        return 0 if self.plan is None else self.plans[self.plan].overdraft_limit

    def burnable(self) -> list[Credit]:
        return sorted((credit for credit in self.credits if credit.burns(self.now)), key=lambda credit: credit.burn)

    def overdrawn(self) -> int:
        return sum(pinned.count(None) for pinned in self.holds.values())

    def held(self) -> int:
        return sum(len(pinned) for pinned in self.holds.values())

    def free(self) -> int:
        return sum(credit.burns(self.now) for credit in self.credits)

    def available(self) -> int:
        return max(0, self.free() - self.debt)

    def headroom(self) -> int:
        return self.free() - self.debt - self.overdrawn() + self.limit()

    def affordable(self) -> int:
        """The headroom with nothing held; what is held of a lot that is gone would not come back."""
        back = sum(credit.place == "held" and credit.gone is None for credit in self.credits)
        return self.headroom() + back + self.overdrawn()

    def issue(self, command: IssueGrant) -> tuple[int, int, bool]:
        """Returns the grant's id, what of it repaid debt, and whether it is new."""
        self.look()
        key = command.source_key
        if key is not None and key in self.keys:
            return self.keys[key], 0, False
        if key is not None:
            self.keys[key] = command.grant_id
        start = self.now if command.effective_at is None else command.effective_at
        repaid = self.add(
            command.grant_id, command.bucket, command.amount, _time(command.expires_at), command.paid, start
        )
        return command.grant_id, repaid, True

    def add(self, grant_id: int, bucket: str, amount: int, expires_at: int, paid: bool, start: int) -> int:
        """Returns what of the new lot repaid debt."""
        burn = (ORDER.get(bucket, len(ORDER)), expires_at, paid, self.now, grant_id)
        lot = [Credit(burn, bucket, start, expires_at) for _ in range(amount)]
        repaid = 0
        for credit in lot:
            if self.debt:
                self.debt -= 1
                repaid += 1
                credit.place = "repaid"
        self.credits += lot
        return repaid

    # -- calls

    def hold(self, command: PlaceHold) -> Refusal | Pinned:
        """Returns what is pinned, or why nothing is."""
        self.look()
        amount = command.amount
        run = None if command.share is None else self.run(command.share)
        if command.share is not None and run is not None:
            amount += _at_most(command.share, run)
        caps = self.caps_of(command)
        free = self.burnable()
        reason = None
        if self.status != "active":
            reason = self.status
        elif command.plans is not None and self.plan not in command.plans:
            reason = "plan"
        elif amount > 0 and amount > self.headroom():
            reason = "held" if amount <= self.affordable() else "insufficient"
        elif amount > 0 and any(amount > left for left in map(self.left_of, caps.values()) if left is not None):
            reason = "limit"
        elif amount * command.within > self.available():
            reason = "large"
        if reason is not None:
            return self.refusal(reason, amount, caps, run)
        pinned: Pinned = [*free[:amount]]
        pinned += [None] * (amount - len(pinned))
        self.holds[command.hold_id] = pinned
        for credit in free[:amount]:
            credit.place = "held"
        self.caps.update(caps)
        self.under[command.hold_id] = {scope: cap.window for scope, cap in caps.items()}
        return pinned

    def refusal(self, reason: str, amount: int, caps: dict[str, Cap], run: Run | None) -> Refusal:
        left = {scope: left for scope, cap in caps.items() if (left := self.left_of(cap)) is not None}
        tightest = min(left, key=lambda scope: left[scope], default=None)
        # With nothing held there is nothing reserved either.
        fits = [left[scope] + self.reserved(caps[scope].window) for scope in left]
        return Refusal(
            reason=reason,
            needed=amount,
            available=self.available(),
            held=self.held(),
            debt=self.debt,
            affordable=max(0, min([self.affordable(), *fits])),
            plan=self.plan,
            run=None if run is None else (len(run.raw), len(run.charged)),
            tightest=None if tightest is None else (tightest, caps[tightest]),
        )

    def end(self, hold_id: int, charged: int, status: str, part: RunShare | None = None) -> tuple[list[int], int]:
        """Returns the lots that paid, one entry a credit, and what became debt."""
        self.look()
        if part is not None:
            charged += self.take_part(part)
        pinned = self.holds.pop(hold_id, [])
        self.ended[hold_id] = status
        for credit in pinned[charged:]:
            if credit is not None:
                credit.come_back()
        paying = pinned[:charged]
        above = charged - len(paying)
        paying += self.burnable()[:above]
        paying += [None] * (charged - len(paying))
        for credit in paying:
            if credit is not None:
                credit.place = "spent"
        owed = paying.count(None)
        self.debt += owed
        lots = [credit.lot for credit in paying if credit is not None]
        # Lot by lot in the order in which each came first, as the receipt says it.
        spent = sorted((credit for credit in paying if credit is not None), key=lambda credit: lots.index(credit.lot))
        self.paid[hold_id] = [*spent, *[None] * owed]
        return lots, owed

    # -- runs

    def run(self, part: RunShare) -> Run:
        return self.runs.setdefault((part.run, part.operation), Run())

    def take_part(self, part: RunShare) -> int:
        """Add a call to its run; returns what the run costs now and has not been charged for."""
        run = self.run(part)
        run.raw += [1] * part.raw
        cost = [*run.raw]
        while part.floor and part.least is not None and len(cost) < part.least:
            cost.append(1)
        while part.most is not None and len(cost) > part.most:
            cost.pop()
        # What lower bounds took off of earlier calls is not made up for by a later one.
        most = _at_most(part if part.floor else replace(part, least=None), run)
        charge = cost[len(run.charged) :][:most]
        run.charged += charge
        return len(charge)

    # -- spend limits

    def spent(self, window: Window) -> int:
        """What calls that were placed in a limit's period were charged and have not been given back."""
        return sum(len(paid) for call, paid in self.paid.items() if window in self.under[call].values())

    def reserved(self, window: Window) -> int:
        return sum(len(pinned) for call, pinned in self.holds.items() if window in self.under[call].values())

    def left_of(self, cap: Cap) -> int | None:
        return None if cap.amount is None else cap.amount - self.spent(cap.window) - self.reserved(cap.window)

    def caps_of(self, command: PlaceHold) -> dict[str, Cap]:
        """The limits that a call comes under, in their periods that are on."""
        caps = {scope: self.cap_as_of_now(scope) for scope in command.scopes if scope in self.caps}
        if command.run_limit is not None:
            run = command.scopes[-1]
            window = caps.pop(run).window if run in caps else Window()
            caps[run] = Cap(command.run_limit, "ever", window)
        return caps

    def cap_as_of_now(self, scope: str) -> Cap:
        cap = self.caps[scope]
        if self.now < cap.window.ends:
            return cap
        return Cap(cap.amount, cap.per, self.window(cap.per, cap.window.label))

    def window(self, per: str, last: date | None = None) -> Window:
        """The day or month that is on, or the one after the last where that is not above it."""
        if per == "ever":
            return Window()
        label = latest(per, None, date_in(self.zone, self.now))
        assert label is not None
        if last is not None and label <= last:
            label = following(per, None, last)
        return Window(label, dawn(self.zone, following(per, None, label)))

    def set_limit(self, scope: str, amount: int | None, per: str) -> None:
        self.look()
        if scope in self.caps and (amount is None or self.caps[scope].per == per):
            cap = self.cap_as_of_now(scope)
            self.caps[scope] = Cap(amount, cap.per, cap.window)
        elif amount is not None:
            self.caps[scope] = Cap(amount, per, self.window(per))

    # -- corrections

    def void_grant(self, grant_id: int) -> int:
        """Returns how many credits went at once."""
        self.look()
        if grant_id in self.voided:
            return 0
        self.voided.add(grant_id)
        went = 0
        for credit in self.credits:
            if credit.lot == grant_id and credit.gone is None:
                credit.gone = "void"
                if credit.place == "free":
                    credit.place = "void"
                    went += 1
        return went

    def adjust(self, command: Adjust) -> tuple[int, int, list[int]]:
        """Returns how debt changed, what was granted, and the lots of the credits taken, one entry a credit."""
        self.look()
        if command.amount > 0:
            reduced = min(self.debt, command.amount)
            self.debt -= reduced
            self.add(
                command.adjustment_id,
                command.bucket,
                command.amount - reduced,
                _time(command.expires_at),
                False,
                self.now,
            )
            return -reduced, command.amount - reduced, []
        taken = self.burnable()[: -command.amount]
        for credit in taken:
            credit.place = "taken"
        owed = -command.amount - len(taken)
        self.debt += owed
        return owed, 0, [credit.lot for credit in taken]

    def refund(self, command: Refund) -> tuple[int, list[int]] | None:
        """Returns by how much debt was reduced and the lots that got credits, one entry a credit; None if refused."""
        self.look()
        paid = self.paid.get(command.hold_id, [])
        amount = len(paid) if command.amount is None else command.amount
        if amount > len(paid) or not paid:
            return None
        reduced, lots, bonus = 0, list[int](), 0
        for _ in range(amount):
            credit = paid.pop()
            if credit is None and self.debt:
                self.debt -= 1
                reduced += 1
            elif credit is None or (credit.gone and (command.as_bonus or command.operator_fault)):
                bonus += 1
            else:
                credit.come_back()
                lots.append(credit.lot)
        self.add(command.refund_id, command.bonus_bucket, bonus, _time(command.bonus_expires_at), False, self.now)
        return reduced, lots + [command.refund_id] * bonus

    # -- what can be looked at

    def lots(self) -> dict[int, Lot]:
        credits: dict[int, list[Credit]] = {}
        for credit in self.credits:
            credits.setdefault(credit.lot, []).append(credit)
        return {lot: _lot(its) for lot, its in credits.items()}

    def used_up(self) -> list[tuple[str, int]]:
        """Of what plans gave in periods that are on: the lots of which nothing is left, and what was spent of them."""
        lots = [lot for number, lot in self.lots().items() if number in self.given]
        return [(lot.bucket, lot.granted - lot.lost) for lot in lots if not lot.left and self.now < lot.ends]

    def live(self) -> list[int]:
        """The lots in force, in burn-down order."""
        live = {credit.burn for credit in self.credits if credit.effective_at <= self.now and credit.gone is None}
        return [burn[-1] for burn in sorted(live)]


def _lot(credits: list[Credit]) -> Lot:
    one, places = credits[0], [credit.place for credit in credits]
    held = places.count("held")
    lost = places.count("lost") + places.count("void") + places.count("taken")
    left = places.count("free") + held
    return Lot(one.bucket, one.burn[2], one.effective_at, one.expires_at, len(credits), left, held, lost)


def _at_most(part: RunShare, run: Run) -> int:
    """The most that a call can be charged for its part: what the run was charged by then can only have become more."""
    cost = [*run.charged, *[1] * part.raw]
    while part.least is not None and len(cost) < part.least:
        cost.append(1)
    while part.most is not None and len(cost) > part.most:
        cost.pop()
    return max(0, len(cost) - len(run.charged))


def _time(expires_at: int | None) -> int:
    """No bucket of these tests has a default lifetime."""
    return NEVER if expires_at is None else expires_at
