"""Decides each step: who runs, how many tokens each, in which blocks, which media must be encoded. Deterministic.

In: requests, and after each step the news that it was computed. Out: a SchedulerOutput. Order is by priority (lower
first), then arrival; decodes are served before prefills, so that a long prompt never holds them up. When blocks run
out, the last in order is put back (its blocks are freed, its tokens kept) and computes its tokens again later.
Sees no tensors and no clock.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from tusi.engine.block_pool import BlockPool
from tusi.engine.config import EngineConfig
from tusi.engine.encoder_cache import EncoderCacheManager
from tusi.engine.prefix_cache import PrefixCache
from tusi.engine.request import MultiModalFeature, Request, RequestStatus


@dataclass(frozen=True, slots=True)
class ScheduledRequest:
    """Tokens start .. start + num_scheduled_tokens of a request, to be computed in this step."""

    request: Request
    start: int
    num_scheduled_tokens: int
    block_ids: tuple[int, ...]

    @property
    def end(self) -> int:
        """One past the last token."""
        return self.start + self.num_scheduled_tokens

    @property
    def needs_logits(self) -> bool:
        """True if this computes the last known token, so that the next one can be drawn."""
        return self.end == self.request.num_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerOutput:
    """One step. free_encoder_mm_hashes are to be dropped first, then media_to_encode encoded, then tokens computed."""

    scheduled: tuple[ScheduledRequest, ...]
    media_to_encode: tuple[MultiModalFeature, ...]
    free_encoder_mm_hashes: tuple[str, ...]
    preempted_request_ids: tuple[str, ...] = ()

    @property
    def num_scheduled_tokens(self) -> int:
        """Tokens of the whole step."""
        return sum(s.num_scheduled_tokens for s in self.scheduled)


@dataclass(slots=True)
class _Step:
    """A SchedulerOutput in the making."""

    token_budget: int
    num_scheduled: dict[str, int] = field(default_factory=dict)
    preempted: list[str] = field(default_factory=list)
    # Once somebody had to wait for room in the encoder cache, nobody behind takes any: else it might wait for ever.
    is_encoder_full: bool = False


def _rank(request: Request) -> tuple[int, float, int]:
    return (request.priority, request.arrival_time, request.sequence_number)


def _waiting_rank(request: Request) -> tuple[int, bool, float, int]:
    # A preempted request has been promised a place: it comes before the new ones of its priority.
    is_new = request.status is not RequestStatus.PREEMPTED
    return (request.priority, is_new, request.arrival_time, request.sequence_number)


class Scheduler:
    """Owns the waiting and running requests and their claims on KV blocks and encoder cache."""

    def __init__(self, config: EngineConfig, num_blocks: int) -> None:
        self._config = config
        self._block_size = config.block_size
        self.block_pool = BlockPool(num_blocks)
        self.prefix_cache = PrefixCache(self.block_pool, config.block_size, enabled=config.enable_prefix_caching)
        self.encoder_cache = EncoderCacheManager(config.encoder_cache_tokens)
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.num_preemptions = 0
        self.num_cache_hit_tokens = 0
        self._num_added = 0

    def add(self, request: Request) -> None:
        """Queue a request that fits (see `admission`)."""
        self._num_added += 1
        request.sequence_number = self._num_added
        insort(self.waiting, request, key=_waiting_rank)

    def schedule(self) -> SchedulerOutput:
        """Plan one step and claim what it needs. `update` must follow once it is computed."""
        step = _Step(self._config.max_num_batched_tokens)
        # max_num_seqs <= max_num_batched_tokens: decodes leave at least a token for every prefill that runs.
        decodes: list[Request] = []
        prefills: list[Request] = []
        for request in self.running:
            (decodes if _num_missing(request) == 1 else prefills).append(request)
        for request in decodes:
            if self._is_within_blocks(request) and step.token_budget > 0:
                step.num_scheduled[request.request_id] = 1
                step.token_budget -= 1
            else:
                self._schedule_running(request, step)
        for request in prefills:
            # A waiting request that ranks first goes first, though this one runs already. Without that, a picture too
            # large to share the encoder cache could wait for ever behind later ones that each hold a little of it.
            self._admit(step, ahead_of=request)
            self._schedule_running(request, step)
        self._admit(step)
        return self._finish_step(step)

    def update(self, output: SchedulerOutput) -> None:
        """Take note that the step was computed, before the newly drawn tokens are appended."""
        for scheduled in output.scheduled:
            request = scheduled.request
            request.num_computed_tokens = scheduled.end
            self.prefix_cache.store(request, scheduled.start)
            for index, feature in enumerate(request.mm_features):
                if scheduled.start < feature.position.end <= scheduled.end:
                    self.encoder_cache.release(request, index)

    def finish(self, request: Request) -> None:
        """Remove a request in any state and free all it holds. Its full blocks stay findable until they are needed."""
        if request.status is RequestStatus.RUNNING:
            self.running.remove(request)
            self._free(request)
        else:
            self.waiting.remove(request)
        request.status = RequestStatus.FINISHED

    def check_integrity(self) -> None:
        """Raise AssertionError unless all claims are consistent; for tests, between steps."""
        running = {r.request_id: r for r in self.running}
        self.block_pool.check_integrity(r.block_ids for r in self.running)
        self.encoder_cache.check_integrity(running)
        assert len(running) == len(self.running) <= self._config.max_num_seqs
        assert all(r.status is RequestStatus.RUNNING for r in self.running)
        assert all(not r.block_ids and r.num_computed_tokens == 0 for r in self.waiting)
        assert self.running == sorted(self.running, key=_rank)
        assert self.waiting == sorted(self.waiting, key=_waiting_rank)
        for request in self.running:
            assert request.num_computed_tokens <= len(request.block_ids) * self._block_size
            assert request.num_computed_tokens < request.num_tokens

    def _is_within_blocks(self, request: Request) -> bool:
        """True if a running request's next token is generated and needs no new block: nothing is to be claimed."""
        computed = request.num_computed_tokens
        return (
            request.status is RequestStatus.RUNNING
            and computed >= len(request.prompt_token_ids)
            and computed < len(request.block_ids) * self._block_size
        )

    def _schedule_running(self, request: Request, step: _Step) -> None:
        if request.status is not RequestStatus.RUNNING or step.token_budget == 0:
            return
        num_new = min(_num_missing(request), step.token_budget)
        num_new = self._cut_at_missing_media(request, num_new, step)
        if num_new > 0 and self._allocate(request, num_new, step):
            step.num_scheduled[request.request_id] = num_new
            step.token_budget -= num_new

    def _admit(self, step: _Step, ahead_of: Request | None = None) -> None:
        """Start waiting requests in order; with ahead_of, only those that rank before it."""
        for request in tuple(self.waiting):
            if len(self.running) >= self._config.max_num_seqs or step.token_budget == 0:
                return
            # What was just put back must not push out in turn, nor must those behind it take what it lacked.
            if step.preempted or (ahead_of is not None and _rank(request) > _rank(ahead_of)):
                return
            cached = self.prefix_cache.match(request)
            if self.prefix_cache.is_being_computed(request, len(cached), self.running):
                continue
            if not self._has_room(request, cached):
                return
            self._start(request, cached, step)

    def _start(self, request: Request, cached_block_ids: list[int], step: _Step) -> None:
        """Run a waiting request from the end of its cached blocks, unless its first medium has no room now."""
        request.num_computed_tokens = len(cached_block_ids) * self._block_size
        num_new = min(_num_missing(request), step.token_budget)
        num_new = self._cut_at_missing_media(request, num_new, step)
        if num_new == 0:
            request.num_computed_tokens = 0
            return
        self.waiting.remove(request)
        if request.status is RequestStatus.WAITING:
            request.num_cached_tokens = request.num_computed_tokens
        self.num_cache_hit_tokens += request.num_computed_tokens
        request.status = RequestStatus.RUNNING
        insort(self.running, request, key=_rank)
        self.block_pool.acquire(cached_block_ids)
        request.block_ids = cached_block_ids
        request.block_ids += self.block_pool.allocate(self._num_missing_blocks(request, num_new))
        step.num_scheduled[request.request_id] = num_new
        step.token_budget -= num_new

    def _has_room(self, request: Request, cached_block_ids: list[int]) -> bool:
        """True if all known tokens fit beside what those who run will still take for theirs.

        And, when others run, a block more for each of them: a request that is let in only to be put back a step
        later has computed for nothing.
        """
        promised = sum(self._num_missing_blocks(r, _num_missing(r)) for r in self.running) + len(self.running)
        idle_hits = sum(self.block_pool.ref_count(b) == 0 for b in cached_block_ids)
        wanted = -(-request.num_tokens // self._block_size) - len(cached_block_ids) + idle_hits
        return wanted + promised <= self.block_pool.num_free_blocks

    def _cut_at_missing_media(self, request: Request, num_new: int, step: _Step) -> int:
        """Hold the features of every medium among the next num_new tokens; stop short of the first without room."""
        start = request.num_computed_tokens
        for index, feature in enumerate(request.mm_features):
            position = feature.position
            if position.end <= start or self.encoder_cache.is_held_by(request, index):
                continue
            if position.offset >= start + num_new:
                break
            if step.is_encoder_full or not self.encoder_cache.acquire(request, index):
                step.is_encoder_full = True
                return max(position.offset - start, 0)
        return num_new

    def _allocate(self, request: Request, num_new: int, step: _Step) -> bool:
        """Give the request the blocks for num_new tokens, putting back others if need be, last in order first.

        False: the request was itself the last. One put back may have been planned already: `_finish_step` lists only
        those who still run.
        """
        count = self._num_missing_blocks(request, num_new)
        while count > self.block_pool.num_free_blocks:
            victim = self.running[-1]
            self._preempt(victim, step)
            if victim is request:
                return False
        request.block_ids += self.block_pool.allocate(count)
        return True

    def _preempt(self, request: Request, step: _Step) -> None:
        step.preempted.append(request.request_id)
        self.running.remove(request)
        self._free(request)
        request.status = RequestStatus.PREEMPTED
        request.num_computed_tokens = 0
        request.num_preemptions += 1
        self.num_preemptions += 1
        insort(self.waiting, request, key=_waiting_rank)

    def _free(self, request: Request) -> None:
        self.block_pool.release(request.block_ids)
        request.block_ids = []
        self.encoder_cache.release_all(request)

    def _num_missing_blocks(self, request: Request, num_new: int) -> int:
        return max(-(-(request.num_computed_tokens + num_new) // self._block_size) - len(request.block_ids), 0)

    def _finish_step(self, step: _Step) -> SchedulerOutput:
        to_encode, freed = self.encoder_cache.take_changes()
        return SchedulerOutput(
            scheduled=tuple(
                ScheduledRequest(r, r.num_computed_tokens, step.num_scheduled[r.request_id], tuple(r.block_ids))
                for r in self.running
                if r.request_id in step.num_scheduled
            ),
            media_to_encode=to_encode,
            free_encoder_mm_hashes=freed,
            preempted_request_ids=tuple(step.preempted),
        )


def _num_missing(request: Request) -> int:
    return len(request.prompt_token_ids) + len(request.output_token_ids) - request.num_computed_tokens
