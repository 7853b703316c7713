"""Limits counted in Redis: one script takes all or nothing, by Redis' own clock.

A window is a hash of its parts, permits are a sorted set by their end. All keys have one hash tag,
so that a cluster keeps them together. The arithmetic is that of `api.limits.book`, in Lua.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from api.limits.book import PARTS, Claim, Permit, Settlements, State, Verdict

_PREFIX = "{qna-limits}:"
_WRITER_KEPT_MS = 2 * 86_400_000
"""Longer than a process may ask for the same again: by then every window is over."""
# KEYS: windows, then permits. ARGV: number of windows, parts, then limit, cost and width in
# microseconds of each window, then limit, id and life in milliseconds of each permit.
_TAKE = """
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local windows, parts = tonumber(ARGV[1]), tonumber(ARGV[2])
local argument, admitted, answer, chosen = 3, 1, {}, {}
for i = 1, windows do
  local limit, cost = tonumber(ARGV[argument]), tonumber(ARGV[argument + 1])
  local width = tonumber(ARGV[argument + 2])
  argument = argument + 3
  local part = math.floor(now / width)
  local ahead = part + parts
  local counts, used, last = {}, 0, -1
  local flat = redis.call('HGETALL', KEYS[i])
  for j = 1, #flat, 2 do
    local at = tonumber(flat[j])
    if at <= ahead then part = math.max(part, at) end
  end
  for j = 1, #flat, 2 do
    local at, count = tonumber(flat[j]), tonumber(flat[j + 1])
    if at < part - parts or at > ahead then
      redis.call('HDEL', KEYS[i], flat[j])
    else
      counts[#counts + 1] = {at, count}
      used = used + count
      last = math.max(last, at)
    end
  end
  local retry, over = 0, used + cost - limit
  if over > 0 then
    admitted, retry = 0, -1
    if cost <= limit then
      table.sort(counts, function(a, b) return a[1] < b[1] end)
      for j = 1, #counts do
        over = over - counts[j][2]
        if over <= 0 then
          retry = math.max(1000, (counts[j][1] + parts + 1) * width - now)
          break
        end
      end
    end
  end
  local reset = 0
  if last >= 0 then reset = math.max(0, (last + parts + 1) * width - now) end
  chosen[i] = {part, cost, width}
  answer[#answer + 1] = used
  answer[#answer + 1] = math.ceil(retry)
  answer[#answer + 1] = math.ceil(reset)
  answer[#answer + 1] = part
end
for i = windows + 1, #KEYS do
  local limit = tonumber(ARGV[argument])
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  local running = redis.call('ZCARD', KEYS[i])
  if running >= limit then admitted = 0 end
  answer[#answer + 1] = running
  argument = argument + 3
end
if admitted == 1 then
  for i = 1, windows do
    redis.call('HINCRBY', KEYS[i], string.format('%.0f', chosen[i][1]), chosen[i][2])
    redis.call('PEXPIRE', KEYS[i], math.ceil(chosen[i][3] * (parts + 2) / 1000))
  end
  argument = 3 + 3 * windows
  for i = windows + 1, #KEYS do
    local life = tonumber(ARGV[argument + 2])
    redis.call('ZADD', KEYS[i], now + life * 1000, ARGV[argument + 1])
    redis.call('PEXPIRE', KEYS[i], math.max(life + 1000, redis.call('PTTL', KEYS[i])))
    argument = argument + 3
  end
end
table.insert(answer, 1, admitted)
return answer
"""
# KEYS: the writer, windows, then permits. ARGV: the writer's number, how long that is kept in
# milliseconds, number of windows, then part and difference of each, then the id of each permit.
_SETTLE = """
local number = tonumber(ARGV[1])
if tonumber(redis.call('GET', KEYS[1]) or 0) >= number then return 0 end
redis.call('SET', KEYS[1], number, 'PX', ARGV[2])
local windows = tonumber(ARGV[3])
for i = 2, windows + 1 do
  local part, difference = ARGV[2 * i], tonumber(ARGV[2 * i + 1])
  local count = tonumber(redis.call('HGET', KEYS[i], part))
  if count and difference ~= 0 then
    redis.call('HINCRBY', KEYS[i], part, math.max(difference, -count))
  end
end
for i = windows + 2, #KEYS do
  redis.call('ZREM', KEYS[i], ARGV[2 + windows + i])
end
return 1
"""


class RedisStore:
    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # Whether to ask again is decided above, where the time is counted.
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        self._take = self._redis.register_script(_TAKE)
        self._settle = self._redis.register_script(_SETTLE)

    async def open(self) -> None:
        await self._redis.ping()

    async def close(self) -> None:
        await self._redis.aclose()

    async def take(self, claims: Sequence[Claim], permits: Sequence[Permit]) -> Verdict:
        arguments: list[Any] = [len(claims), PARTS]
        for claim in claims:
            arguments += [claim.limit, claim.cost, claim.period_s * 1e6 / PARTS]
        for permit in permits:
            arguments += [permit.limit, permit.permit_id, int(permit.ttl_s * 1000)]
        answer = await self._take(keys=_keys(claims, permits), args=arguments)
        numbers = [int(value) for value in answer]
        rows = [numbers[1 + 4 * index : 5 + 4 * index] for index in range(len(claims))]
        states = [
            State(used, math.inf if retry < 0 else retry / 1e6, reset / 1e6)
            for used, retry, reset, _ in rows
        ]
        return Verdict(
            bool(numbers[0]),
            claims,
            permits,
            states,
            numbers[1 + 4 * len(claims) :],
            [row[3] for row in rows],
        )

    async def settle(self, settlements: Settlements) -> None:
        changed = list(settlements.claims)
        permits = list(settlements.permits)
        arguments: list[Any] = [settlements.number, _WRITER_KEPT_MS, len(changed)]
        for _, part, difference in changed:
            arguments += [part, difference]
        arguments += [permit.permit_id for permit in permits]
        keys = [f"{_PREFIX}writer:{settlements.writer}", *_keys((c for c, *_ in changed), permits)]
        await self._settle(keys=keys, args=arguments)


def _keys(claims: Iterable[Claim], permits: Iterable[Permit]) -> list[str]:
    return [
        *(f"{_PREFIX}{claim.subject}:{claim.name}" for claim in claims),
        *(f"{_PREFIX}{permit.subject}:running" for permit in permits),
    ]
