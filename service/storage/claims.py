"""Claims of new DIAObjects: one atomic call decides which of several workers names what both have found."""

from typing import Any, Final

import numpy as np
import redis
from numpy.typing import NDArray

from core.errors import TransientError
from service.storage.sky_pixels import CLAIM_ORDER, cells_of, neighborhood

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

CLAIM_RADIUS_ARCSEC: Final = 1.0
CLAIM_TTL_S: Final = 7200

# KEYS[1] prefix. ARGV: time to live, owner, radius [arcsec], then per claim: id, ra, dec, its cell, eight neighbors.
# A cell is a hash of id -> "owner ra dec". One owner's claims never adopt each other: they are different sources of one
# image. Ids are text: a double has no room for them.
_SCRIPT: Final = """
local prefix, ttl, owner, radius = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local answers = {}
for i = 4, #ARGV, 12 do
  local id, ra, dec = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local scale = math.cos(math.rad(dec))
  local own = prefix .. ARGV[i + 3]
  local best, nearest = false, radius
  if redis.call('HEXISTS', own, id) == 1 then
    best = id
  else
    for j = i + 3, i + 11 do
      if ARGV[j] ~= '-1' then
        local entries = redis.call('HGETALL', prefix .. ARGV[j])
        for k = 1, #entries, 2 do
          local who, x, y = string.match(entries[k + 1], '^(%S+) (%S+) (%S+)$')
          if who ~= owner then
            local east = math.abs(tonumber(x) - ra)
            if east > 180 then east = 360 - east end
            local distance = 3600 * math.sqrt((east * scale) ^ 2 + (tonumber(y) - dec) ^ 2)
            if distance <= nearest then
              best, nearest = entries[k], distance
            end
          end
        end
      end
    end
  end
  if not best then
    redis.call('HSET', own, id, owner .. ' ' .. ARGV[i + 1] .. ' ' .. ARGV[i + 2])
    redis.call('EXPIRE', own, ttl)
    best = id
  end
  answers[#answers + 1] = best
end
return answers
"""


class Claims:
    """New DIAObjects of the last two hours, by position."""

    def __init__(self, client: Any, namespace: str = "sub60") -> None:
        self._prefix = f"{namespace}:claim:"
        self._script = client.register_script(_SCRIPT)

    def claim(self, owner: str, ra_deg: Float64, dec_deg: Float64, proposed_id: Int64) -> Int64:
        """Ids under which new objects go: that of an earlier claim within 1 arcsec, else the one proposed.

        ``owner`` names the visit-detector (no spaces); its own claims do not adopt each other, and the same call again
        gives the same answer. Raises ``TransientError`` when the server does not answer in time.
        """
        if proposed_id.size == 0:
            return proposed_id.copy()
        cells = neighborhood(cells_of(ra_deg, dec_deg, CLAIM_ORDER), CLAIM_ORDER)
        own = cells_of(ra_deg, dec_deg, CLAIM_ORDER)
        arguments: list[str | int] = [CLAIM_TTL_S, owner, repr(CLAIM_RADIUS_ARCSEC)]
        for i in range(proposed_id.size):
            around = [int(cell) for cell in cells[i] if cell != own[i]]
            arguments += [int(proposed_id[i]), repr(float(ra_deg[i])), repr(float(dec_deg[i])), int(own[i]), *around]
        try:
            answers = self._script(keys=[self._prefix], args=arguments)
        except redis.RedisError as error:
            raise TransientError("no answer to a claim of new objects", code="claim_unavailable") from error
        return np.array([int(answer) for answer in answers], np.int64)
