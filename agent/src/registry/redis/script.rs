//! What Redis does in one step, so that no other server comes in between; and the names of what is there.

/// Hash of CPEs: name to everything else.
pub(super) const CPES: &str = "{tr111}:cpes";
/// Hash of associations.
pub(super) const ASSOCIATIONS: &str = "{tr111}:associations";
/// Hash of the last `ts` that was reserved for a CPE.
pub(super) const TIMESTAMPS: &str = "{tr111}:timestamps";
/// The last time that was known to be good ([`tr111_core::acs::Change::GoodTime`]).
pub(super) const GOOD_TIME: &str = "{tr111}:good_time";
/// The number that was given to a binding last ([`tr111_core::acs::Stamp::revision`]).
pub(super) const REVISION: &str = "{tr111}:revision";
/// Number of the last change.
pub(super) const SEQUENCE: &str = "{tr111}:sequence";
/// Stream of names that changed, under the numbers of the changes. What they are now is in the hashes.
pub(super) const CHANGES: &str = "{tr111}:changes";
/// Sets of signed requests that were accepted, in two generations.
pub(super) const SIGNED_RECENT: &str = "{tr111}:signed";
pub(super) const SIGNED_OLDER: &str = "{tr111}:signed_older";
/// Random text that is gone when everything was lost.
pub(super) const EPOCH: &str = "{tr111}:epoch";
/// Which key the passwords are encrypted under.
pub(super) const KEY: &str = "{tr111}:key";

/// Kind of a name in [`CHANGES`].
pub(super) const CPE: &str = "c";
/// Kind of a key in [`CHANGES`].
pub(super) const ASSOCIATION: &str = "a";
/// Kind of a name in [`CHANGES`] whose last `ts` was forgotten; an empty name stands for all.
pub(super) const TIMESTAMP: &str = "t";
/// Kind of [`GOOD_TIME`], which is in no stream.
pub(super) const TIME: &str = "g";
/// Random bytes of each entry of [`CHANGES`]: after a loss, another change has the same number.
pub(super) const TOKEN: &str = "x";

/// Names that [`CHANGES`] remembers. A server that missed more reads everything again.
pub(super) const REMEMBERED: usize = 1 << 18;

/// Writes values that still are what the writer took them for. First how many names are remembered, then a [`TOKEN`], then
/// for each: kind, name, value before, value after; an empty one is none. Gives the names of those that another server
/// changed in between. A timestamp only rises or is forgotten.
pub(super) const WRITE: &str = "
local missed = {}
local function put(hash, name, value)
  if value ~= '' then redis.call('HSET', hash, name, value) else redis.call('HDEL', hash, name) end
end
for at = 3, #ARGV, 4 do
  local kind, name, before, after = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local is_told = true
  if kind == 'c' and (redis.call('HGET', KEYS[1], name) or '') ~= before then
    missed[#missed + 1] = name
    is_told = false
  elseif kind == 'c' then
    put(KEYS[1], name, after)
    if after == '' then redis.call('HDEL', KEYS[3], name) end
  elseif kind == 'a' then
    put(KEYS[2], name, after)
  elseif kind == 'g' then
    redis.call('SET', KEYS[6], after)
    is_told = false
  elseif after ~= '' then
    if tonumber(redis.call('HGET', KEYS[3], name) or '-1') < tonumber(after) then put(KEYS[3], name, after) end
    is_told = false
  elseif name ~= '' then
    redis.call('HDEL', KEYS[3], name)
  else
    redis.call('UNLINK', KEYS[3])
  end
  if is_told then
    local number = redis.call('INCR', KEYS[4])
    redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[1], number .. '-0', kind, name, 'x', ARGV[2])
  end
end
return missed";

/// Reserves a `ts` for each CPE (T-54). First the time, then for each: name, and the last one that the asking server knows
/// of and believes, or -1.
pub(super) const RESERVE: &str = "
local reserved = {}
for at = 2, #ARGV, 2 do
  local last = tonumber(redis.call('HGET', KEYS[1], ARGV[at]) or '-1') or -1
  local next = math.max(tonumber(ARGV[1]), last + 1, tonumber(ARGV[at + 1]) + 1)
  local text = string.format('%.0f', next)
  redis.call('HSET', KEYS[1], ARGV[at], text)
  reserved[#reserved + 1] = text
end
return reserved";

/// Remembers signed requests (T-67), and gives 1 for each that was remembered before, else 0. First the size of a generation,
/// then the requests. A generation that is full becomes the older one.
pub(super) const REMEMBER: &str = "
local known = {}
for at = 2, #ARGV do
  local is_new = redis.call('SISMEMBER', KEYS[2], ARGV[at]) == 0 and redis.call('SADD', KEYS[1], ARGV[at]) == 1
  known[#known + 1] = is_new and 0 or 1
end
if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[1]) then
  redis.call('UNLINK', KEYS[2])
  redis.call('RENAME', KEYS[1], KEYS[2])
end
return known";
