"""The sampler's own cost, and the rates that keep it within its budget."""

from __future__ import annotations

ROUND_SECONDS = 0.05  # suspended tasks and worker threads, when the budget allows
SLOWEST_ROUND = 2.0
SLOWEST_TICK = 0.2
TICKS = 0.8  # the share of the budget that ticks may take when the rounds need theirs


class Budget:
    """Adapts the two periods once a second to the share of one core that was spent.

    The second rate (suspended tasks, worker threads) gives way first; the rate of running code
    only when its ticks alone are too dear. Both return when there is room.
    """

    def __init__(self, hz: float, share: float) -> None:
        self.asked_period = 1.0 / hz
        self.share = share
        self.tick_period = self.asked_period
        self.round_period = ROUND_SECONDS
        self.tick_cost = 0.0  # seconds, since the last adaptation
        self.round_cost = 0.0
        self.total = 0.0

    def spend_tick(self, seconds: float) -> None:
        self.tick_cost += seconds
        self.total += seconds

    def spend_round(self, seconds: float) -> None:
        self.round_cost += seconds
        self.total += seconds

    def adapt(self, elapsed: float) -> None:
        """Set the periods for the next second from the cost of the last `elapsed` seconds."""
        if elapsed <= 0:
            return
        ticks, rounds = self.tick_cost / elapsed, self.round_cost / elapsed
        self.tick_cost = self.round_cost = 0.0
        slowest = max(SLOWEST_TICK, self.asked_period)
        self.tick_period = _period(
            self.tick_period, ticks, self.share * TICKS, self.asked_period, slowest
        )
        room = max(self.share - ticks, self.share * (1 - TICKS))
        fastest = max(ROUND_SECONDS, self.asked_period)
        self.round_period = _period(self.round_period, rounds, room, fastest, SLOWEST_ROUND)


def _period(now: float, spent: float, allowed: float, fastest: float, slowest: float) -> float:
    """The period at which `allowed` would be spent, approached by at most a factor of two."""
    wanted = now * spent / allowed if allowed > 0 else slowest
    return min(max(wanted, now / 2, fastest), now * 2, slowest)
