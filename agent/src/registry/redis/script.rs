//! What Redis does in one step, so that no other server comes in between; and the names of what is there.

/// Hash of CPEs: name to everything else.
pub(super) const CPES: &str = "{tr111}:cpes";
/// Hash of associations.
pub(super) const ASSOCIATIONS: &str = "{tr111}:associations";
/// Hash of the last `ts` that was reserved for a CPE.
pub(super) const TIMESTAMPS: &str = "{tr111}:timestamps";
/// Number of the last change.
pub(super) const SEQUENCE: &str = "{tr111}:sequence";
/// Stream of names that changed, under the numbers of the changes. What they are now is in the hashes.
pub(super) const CHANGES: &str = "{tr111}:changes";
/// Random text that is gone when everything was lost.
pub(super) const EPOCH: &str = "{tr111}:epoch";

/// Kind of a name in [`CHANGES`].
pub(super) const CPE: &str = "c";
/// Kind of a key in [`CHANGES`].
pub(super) const ASSOCIATION: &str = "a";

/// Names that [`CHANGES`] remembers. A server that missed more reads everything again.
pub(super) const REMEMBERED: usize = 1 << 18;

/// Writes values that still are what the writer took them for. For each: kind, name, value before, value after; an empty
/// one is none. Gives the names of those that another server changed in between.
pub(super) const WRITE: &str = "
local missed = {}
for at = 2, #ARGV, 4 do
  local kind, name, before, after = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local hash = kind == 'c' and KEYS[1] or KEYS[2]
  if kind == 'c' and (redis.call('HGET', hash, name) or '') ~= before then
    missed[#missed + 1] = name
  else
    if after ~= '' then
      redis.call('HSET', hash, name, after)
    else
      redis.call('HDEL', hash, name)
      if kind == 'c' then redis.call('HDEL', KEYS[3], name) end
    end
    local number = redis.call('INCR', KEYS[4])
    redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[1], number .. '-0', kind, name)
  end
end
return missed";

/// Reserves a `ts` for each CPE (T-54). First the time, then for each: name, and the last one that the asking server knows
/// of, or -1.
pub(super) const RESERVE: &str = "
local reserved = {}
for at = 2, #ARGV, 2 do
  local last = redis.call('HGET', KEYS[1], ARGV[at]) or '-1'
  local next = math.max(tonumber(ARGV[1]), tonumber(last) + 1, tonumber(ARGV[at + 1]) + 1)
  local text = string.format('%.0f', next)
  redis.call('HSET', KEYS[1], ARGV[at], text)
  reserved[#reserved + 1] = text
end
return reserved";
