"""What the rules say, at one item per credit: slow, and too plain to be wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from ledger.commands import Adjust, IssueGrant, PlaceHold, Refund
from ledger.model import NEVER

ORDER = {"daily": 0, "bonus": 1, "paid": 2}


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

    def burns(self, now: int) -> bool:
        return self.place == "free" and self.effective_at <= now < self.expires_at

    def come_back(self) -> None:
        """It is released, or refunded: it is free again unless its lot is gone."""
        self.place = self.gone or "free"


# What a hold pins, credit by credit; None is one on the overdraft.
Pinned = list[Credit | None]


@dataclass(slots=True)
class Model:
    """One account."""

    limit: int
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

    def pass_time(self, microseconds: int) -> None:
        self.now += microseconds
        for credit in self.credits:
            if credit.expires_at <= self.now and credit.gone is None:
                credit.gone = "lost"
                if credit.place == "free":
                    credit.place = "lost"

    def burnable(self) -> list[Credit]:
        return sorted((credit for credit in self.credits if credit.burns(self.now)), key=lambda credit: credit.burn)

    def overdrawn(self) -> int:
        return sum(pinned.count(None) for pinned in self.holds.values())

    def available(self) -> int:
        return max(0, len(self.burnable()) - self.debt)

    def issue(self, command: IssueGrant) -> tuple[int, int, bool]:
        """Returns the grant's id, what of it repaid debt, and whether it is new."""
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

    def hold(self, command: PlaceHold) -> str | Pinned:
        """Returns what is pinned, or why nothing is."""
        free = self.burnable()
        headroom = len(free) - self.debt - self.overdrawn() + self.limit
        back = sum(credit.place == "held" and credit.gone is None for credit in self.credits) + self.overdrawn()
        if self.status != "active":
            return self.status
        if command.amount > 0 and command.amount > headroom:
            return "held" if command.amount <= headroom + back else "insufficient"
        if command.amount * command.within > self.available():
            return "large"
        pinned: Pinned = [*free[: command.amount]]
        pinned += [None] * (command.amount - len(pinned))
        self.holds[command.hold_id] = pinned
        for credit in free[: command.amount]:
            credit.place = "held"
        return pinned

    def end(self, hold_id: int, charged: int, status: str) -> tuple[list[int], int]:
        """Returns the lots that paid, one entry a credit, and what became debt."""
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

    def void_grant(self, grant_id: int) -> int:
        """Returns how many credits went at once."""
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
        if command.amount > 0:
            reduced = min(self.debt, command.amount)
            self.debt -= reduced
            self.add(
                command.grant_id, command.bucket, command.amount - reduced, _time(command.expires_at), False, self.now
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


def _time(expires_at: int | None) -> int:
    """No bucket of these tests has a default lifetime."""
    return NEVER if expires_at is None else expires_at
