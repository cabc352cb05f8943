"""A night as a discrete-event simulation: shards, slots, stragglers, machines that fail.

It knows nothing of the arithmetic in `scale.py` but the constants, so that each checks the other.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import simpy

from benchmarks.lib.scale import Constants, Fleet, Plan

Events = Generator[simpy.Event, Any, None]
PIECES = 16  # of a shard: its machine serves the shards in turns, and what is done of one is never lost
LEAST = 0.05  # of a piece's usual time


@dataclass(frozen=True)
class Trouble:
    """What goes wrong.

    Attributes:
        spread: Standard deviation of a piece's time, as a share of it.
        failures: Of one machine, per hour.
        repair: Seconds until a failed machine is back.
        noticed: Seconds until a shard of a failed machine is given to another (the heartbeat's time-out).
    """

    spread: float = 0.0
    failures: float = 0.0
    repair: float = 600.0
    noticed: float = 120.0


class Night:
    """A night, its runs side by side; `play` it once.

    Args:
        plan: How the images are cut.
        fleet: What scores them.
        constants: Measured.
        trouble: What goes wrong.
        seed: Of all chance.

    Attributes:
        seconds: From the trigger to the last success.
        pieces: Pieces of shards scored.
        again: Pieces that had to be scored a second time.
        failures: Of machines.
    """

    def __init__(
        self, plan: Plan, fleet: Fleet, constants: Constants, trouble: Trouble, seed: int = 0
    ) -> None:
        self.seconds, self.pieces, self.again, self.failures = 0.0, 0, 0, 0
        self._plan, self._constants, self._trouble = plan, constants, trouble
        self._chance = random.Random(seed)  # noqa: S311 - a simulation
        self._clock = simpy.Environment()
        self._waiting: simpy.Store = simpy.Store(self._clock)
        self._images = plan.images / plan.runs
        # Seconds of a piece that has a whole machine to itself.
        self._piece = self._images / plan.shards / PIECES / (fleet.cores * constants.rate)
        for _ in range(fleet.machines):
            machine = _Machine(self._clock)
            for _ in range(fleet.shards):
                self._clock.process(self._worker(machine))
            if trouble.failures:
                self._clock.process(self._fail(machine))

    def play(self) -> Night:
        """Play it to the end of its last run."""
        runs = [self._clock.process(self._run()) for _ in range(self._plan.runs)]
        self._clock.run(self._clock.all_of(runs))
        self.seconds = self._clock.now
        return self

    def _run(self) -> Events:
        """Play the stages of one run."""
        constants = self._constants
        for stage in (constants.preprocess, constants.check_manifest):
            yield self._clock.timeout(stage.seconds(self._images) + constants.task)
        yield self._clock.timeout(constants.task)  # plan
        run = _Run(self._plan.shards, self._clock.event())
        for _ in range(self._plan.shards):
            yield self._waiting.put(_Shard(run, PIECES))
        yield run.scored
        for stage in (constants.check_predictions, constants.postprocess):
            yield self._clock.timeout(stage.seconds(self._images) + constants.task)
        yield self._clock.timeout(2 * constants.task)  # finished, and the success noticed

    def _worker(self, machine: _Machine) -> Events:
        """Score shard after shard, in one slot of a machine."""
        while True:
            shard = yield self._waiting.get()
            if not machine.up:
                yield machine.back
            yield self._clock.timeout(self._constants.task)
            while shard.pieces and (yield from self._score(machine)):
                self.pieces += 1
                shard.pieces -= 1
            if shard.pieces:
                self.again += 1
                self._clock.process(self._give_on(shard))
                continue
            shard.run.left -= 1
            if not shard.run.left:
                shard.run.scored.succeed()

    def _score(self, machine: _Machine) -> Generator[simpy.Event, Any, bool]:
        """Score a piece; False if the machine failed under it, for then nobody has its answers."""
        with machine.server.request() as turn:
            yield turn
            failed = machine.failures
            slower = max(LEAST, self._chance.gauss(1.0, self._trouble.spread))
            yield self._clock.timeout(self._piece * slower)
        return machine.failures == failed

    def _give_on(self, shard: _Shard) -> Events:
        """Give what is left of a shard to another machine, once the failure is noticed."""
        yield self._clock.timeout(self._trouble.noticed)
        yield self._waiting.put(shard)

    def _fail(self, machine: _Machine) -> Events:
        """Let a machine fail, and come back, again and again."""
        while True:
            yield self._clock.timeout(self._chance.expovariate(self._trouble.failures / 3600))
            self.failures += 1
            machine.failures += 1
            machine.up, machine.back = False, self._clock.event()
            yield self._clock.timeout(self._trouble.repair)
            machine.up = True
            machine.back.succeed()


class _Machine:
    """One machine; `failures` so far tell a worker whether it failed under its piece."""

    def __init__(self, clock: simpy.Environment) -> None:
        self.up, self.failures = True, 0
        self.back = clock.event()
        self.server = simpy.Resource(clock, 1)


@dataclass
class _Run:
    """One run: shards that are left, and the event that none is."""

    left: int
    scored: simpy.Event


@dataclass
class _Shard:
    """One shard, with the pieces that are left of it."""

    run: _Run
    pieces: int
