"""The sampler's own cost, and the rates that keep it within its budget."""

from __future__ import annotations

ROUND_SECONDS = 0.05  # suspended tasks and worker threads, when the budget allows
SLOWEST_ROUND = 3.0
SLOWEST_TICK = 0.2
AIM = 0.75  # the share of the budget that rounds fill up to: the rest is what they cannot foresee
TICKS = 0.85  # the share of the budget that ticks may take when the rounds need theirs
SETTLED_SECONDS = 2.0  # imports make every stack a new one: no reason to tick less later


class Budget:
    """Adapts two periods to the share of one core that was spent.

    Rounds (suspended tasks, worker threads) give way first and at once: after a round that cost
    `c` seconds the next is due when `c` is what the budget, less the ticks, allows for the time
    between. The rate of running code gives way only when its ticks alone are too dear.
    """

    def __init__(self, hz: float, share: float) -> None:
        self.asked_period = 1.0 / hz
        self.share = share
        self.tick_period = self.asked_period
        self.round_period = ROUND_SECONDS
        self.total = 0.0  # seconds of CPU
        self.setup = 0.0  # of them, learning what modules have been loaded
        self._tick_cost = 0.0  # since the last adaptation
        self._tick_share = share / 2  # of one core, smoothed
        self._round_cost = 0.0  # of the present round
        self._age = 0.0

    def spend_setup(self, seconds: float) -> None:
        self.setup += seconds
        self.total += seconds

    def spend_tick(self, seconds: float) -> None:
        self._tick_cost += seconds
        self.total += seconds

    def spend_round(self, seconds: float, begins: bool = False) -> float:
        """Add to the cost of the present round; returns the seconds from its start to the next."""
        self.total += seconds
        self._round_cost = seconds if begins else self._round_cost + seconds
        # What was overspent so far is paid back within ten seconds, as far as rounds can.
        debt = max(self.total - self.setup - self.share * self._age, 0.0) / 10
        room = max(self.share * AIM - self._tick_share - debt, self.share * (1 - TICKS) / 2)
        wanted = self._round_cost / room if room > 0 else SLOWEST_ROUND
        fastest = max(ROUND_SECONDS, self.asked_period)
        self.round_period = min(max(wanted, fastest), SLOWEST_ROUND)
        return self.round_period

    def adapt(self, elapsed: float) -> None:
        """Set the period of ticks from the cost of the last `elapsed` seconds."""
        if elapsed <= 0:
            return
        self._age += elapsed
        spent = self._tick_cost / elapsed
        self._tick_cost = 0.0
        self._tick_share += (spent - self._tick_share) * min(elapsed / 2, 1.0)
        if self._age < SETTLED_SECONDS and self._tick_share < 3 * self.share:
            return
        allowed = self.share * TICKS
        slowest = max(SLOWEST_TICK, self.asked_period)
        wanted = self.tick_period * self._tick_share / allowed if allowed > 0 else slowest
        wanted = max(wanted, self.tick_period / 2, self.asked_period)
        self.tick_period = min(wanted, self.tick_period * 2, slowest)
