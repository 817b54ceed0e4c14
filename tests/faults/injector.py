"""Carries out a plan of faults, and mends each one when its time is over."""

import heapq
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import psutil

from DmpWorkflow.utils.errors import DmpWorkflowError
from tests.faults.checker import Instance
from tests.faults.installation import PEOPLE, SMALL, Installation, Wrapper, moved_clock
from tests.faults.ledger import Attempt
from tests.faults.parts import Part
from tests.faults.plan import Fault, Kind
from tests.faults.work import SITES

HOUR = 3600
REPLIES = 3  # that are lost one after the other
MOST_DELAY = 0.5  # seconds
BALLAST = "ballast"

Item = TypeVar("Item")
Action = Callable[[], None]


class Injector:
    """What it did is in ``injected``; whose wrappers it killed, and what it ordered, the checker must know."""

    def __init__(self, installation: Installation) -> None:
        self.injected: Counter[Kind] = Counter()
        self.killed: set[Attempt] = set()
        self.ordered: set[Instance] = set()
        self.filled: set[str] = set()
        self._all = installation
        self._busy: set[str] = set()  # parts that are in trouble already; of the replica set one at a time
        self._queue: list[tuple[float, int, Action]] = []
        self._numbers = itertools.count()

    def run(self, faults: Sequence[Fault]) -> None:
        """Do it all, in its time; everything is mended at the end."""
        begin = time.monotonic()
        for fault in faults:
            self._at(begin + fault.at, lambda fault=fault: self._inject(fault))  # type: ignore[misc]
        while self._queue:
            at, _, action = heapq.heappop(self._queue)
            time.sleep(max(0.0, at - time.monotonic()))  # the plan says when
            action()

    def _at(self, at: float, action: Action) -> None:
        heapq.heappush(self._queue, (at, next(self._numbers), action))

    def _inject(self, fault: Fault) -> None:
        if FAULTS[fault.kind](self, fault):
            self.injected[fault.kind] += 1

    def _hurt(self, fault: Fault, name: str, hurt: Action, mend: Action) -> bool:
        """Put one part in trouble until its time is over; False if it is in trouble already."""
        if name in self._busy:
            return False
        self._busy.add(name)
        hurt()

        def over() -> None:
            mend()
            self._busy.discard(name)

        self._at(time.monotonic() + fault.seconds, over)
        return True

    def kill_member(self, fault: Fault) -> bool:
        member = self._member(fault)
        return member is not None and self._hurt(fault, "replica set", member.kill, member.start)

    def freeze_member(self, fault: Fault) -> bool:
        member = self._member(fault)
        return member is not None and self._hurt(fault, "replica set", member.freeze, member.thaw)

    def _member(self, fault: Fault) -> Part | None:
        if "replica set" in self._busy:
            return None
        primary = self._all.replicas.primary()
        if fault.kind in (Kind.KILL_PRIMARY, Kind.FREEZE_PRIMARY):
            return primary
        return _pick([member for member in self._all.replicas.members if member is not primary], fault)

    def step_down(self, fault: Fault) -> bool:
        return "replica set" not in self._busy and self._all.replicas.step_down()

    def kill_server(self, fault: Fault) -> bool:
        server = _pick(self._all.servers, fault)
        return self._hurt(fault, server.name, server.kill, server.start)

    def freeze_server(self, fault: Fault) -> bool:
        server = _pick(self._all.servers, fault)
        return self._hurt(fault, server.name, server.freeze, server.thaw)

    def restart_server(self, fault: Fault) -> bool:
        server = _pick(self._all.servers, fault)
        return self._hurt(fault, server.name, server.terminate, lambda: _again(server))

    def clock_of_server(self, fault: Fault) -> bool:
        server = _pick(self._all.servers, fault)
        return self._hurt(fault, server.name, lambda: _with_clock(server, fault), lambda: _again(server))

    def kill_agent(self, fault: Fault) -> bool:
        agent = _pick(self._all.agents, fault)
        return self._hurt(fault, agent.name, agent.kill, agent.start)

    def freeze_agent(self, fault: Fault) -> bool:
        agent = _pick(self._all.agents, fault)
        return self._hurt(fault, agent.name, agent.freeze, agent.thaw)

    def restart_agent(self, fault: Fault) -> bool:
        agent = _pick(self._all.agents, fault)
        return self._hurt(fault, agent.name, agent.terminate, lambda: _again(agent))

    def clock_of_agent(self, fault: Fault) -> bool:
        """Move the clock of an agent, and of all payloads that it starts meanwhile."""
        agent = _pick(self._all.agents, fault)
        return self._hurt(fault, agent.name, lambda: _with_clock(agent, fault), lambda: _again(agent))

    def crash_node(self, fault: Fault) -> bool:
        agent = _pick(self._all.agents, fault)
        return self._hurt(fault, agent.name, lambda: self.killed.update(agent.crash()), agent.start)

    def kill_wrapper(self, fault: Fault) -> bool:
        if wrapper := self._wrapper(fault):
            self.killed.add(wrapper.attempt)
            with suppress(psutil.NoSuchProcess):
                wrapper.process.kill()
        return wrapper is not None

    def freeze_wrapper(self, fault: Fault) -> bool:
        wrapper = self._wrapper(fault)
        if wrapper is None:
            return False
        return self._hurt(
            fault,
            f"wrapper {wrapper.attempt}",
            lambda: _send(wrapper.process.suspend),
            lambda: _send(wrapper.process.resume),
        )

    def _wrapper(self, fault: Fault) -> Wrapper | None:
        found = [wrapper for agent in self._all.agents for wrapper in agent.wrappers()]
        return _pick(found, fault) if found else None

    def kill_payload(self, fault: Fault) -> bool:
        found = [payload for agent in self._all.agents for payload in agent.payloads()]
        if found:
            _send(_pick(found, fault).kill)
        return bool(found)

    def kill_worker(self, fault: Fault) -> bool:
        found = [worker for agent in self._all.agents for worker in agent.workers()]
        if found:
            _send(_pick(found, fault).kill)
        return bool(found)

    def cut(self, fault: Fault) -> bool:
        door, proxy = self._door(fault), self._all.proxy
        return self._hurt(fault, f"door {door}", lambda: proxy.cut(door), lambda: proxy.mend(door))

    def delay(self, fault: Fault) -> bool:
        door, proxy = self._door(fault), self._all.proxy
        seconds = MOST_DELAY * fault.pick
        return self._hurt(fault, f"door {door}", lambda: proxy.delay(door, seconds), lambda: proxy.mend(door))

    def lose(self, fault: Fault) -> bool:
        door = self._door(fault)
        self._all.proxy.lose(door, REPLIES)
        return True

    def _door(self, fault: Fault) -> str:
        return _pick([PEOPLE, *SITES], fault)

    def fill_disk(self, fault: Fault) -> bool:
        ballast = self._all.site_folder(SMALL) / BALLAST
        if not self._all.has_small_disk:
            return False
        self.filled.add(SMALL)

        def fill() -> None:
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(b"\0" * 4096):
                    pass

        return self._hurt(fault, "disk", fill, ballast.unlink)

    def roll_back(self, fault: Fault) -> bool:
        return self._order(fault, lambda job, number: self._all.people.roll_back(job, instances=[number]))

    def kill_order(self, fault: Fault) -> bool:
        return self._order(fault, lambda job, number: self._all.people.kill(job, instances=[number]))

    def _order(self, fault: Fault, order: Callable[[str, int], object]) -> bool:
        """Let people do something to an instance that is at work; they may fail at it."""
        wrapper = self._wrapper(fault)
        if wrapper is None:
            return False
        job, number, _ = wrapper.attempt
        self.ordered.add((job, number))

        def give() -> None:
            with suppress(DmpWorkflowError):
                order(job, number)

        threading.Thread(target=give, daemon=True).start()  # the next fault does not wait for it
        return True


def _pick(items: Sequence[Item], fault: Fault) -> Item:
    return items[int(fault.pick * len(items))]


def _again(part: Part) -> None:
    """Start a part anew, with the environment that it ought to have."""
    part.stop()
    part.start()


def _with_clock(part: Part, fault: Fault) -> None:
    part.stop()
    part.start(moved_clock(HOUR if fault.pick * 1000 % 2 < 1 else -HOUR))


def _send(signal: Action) -> None:
    with suppress(psutil.NoSuchProcess):
        signal()


FAULTS: dict[Kind, Callable[[Injector, Fault], bool]] = {
    Kind.KILL_PRIMARY: Injector.kill_member,
    Kind.KILL_MEMBER: Injector.kill_member,
    Kind.FREEZE_PRIMARY: Injector.freeze_member,
    Kind.FREEZE_MEMBER: Injector.freeze_member,
    Kind.STEP_DOWN: Injector.step_down,
    Kind.KILL_SERVER: Injector.kill_server,
    Kind.FREEZE_SERVER: Injector.freeze_server,
    Kind.RESTART_SERVER: Injector.restart_server,
    Kind.KILL_AGENT: Injector.kill_agent,
    Kind.FREEZE_AGENT: Injector.freeze_agent,
    Kind.RESTART_AGENT: Injector.restart_agent,
    Kind.CRASH_NODE: Injector.crash_node,
    Kind.KILL_WRAPPER: Injector.kill_wrapper,
    Kind.FREEZE_WRAPPER: Injector.freeze_wrapper,
    Kind.KILL_PAYLOAD: Injector.kill_payload,
    Kind.KILL_WORKER: Injector.kill_worker,
    Kind.CUT: Injector.cut,
    Kind.DELAY: Injector.delay,
    Kind.LOSE: Injector.lose,
    Kind.FILL_DISK: Injector.fill_disk,
    Kind.CLOCK_OF_AGENT: Injector.clock_of_agent,
    Kind.CLOCK_OF_SERVER: Injector.clock_of_server,
    Kind.ROLL_BACK: Injector.roll_back,
    Kind.KILL_ORDER: Injector.kill_order,
}
