//! Names of the Redis keys, and the scripts that Redis runs atomically.

/// Hash of CPEs: name to record.
pub(super) const CPES: &str = "{tr111}:cpes";
/// Hash of associations.
pub(super) const ASSOCIATIONS: &str = "{tr111}:associations";
/// Hash of timestamps: name of a CPE to the last reserved `ts`.
pub(super) const TIMESTAMPS: &str = "{tr111}:timestamps";
/// The last time at which the clock was known to be correct ([`tr111_core::acs::Change::GoodTime`]).
pub(super) const GOOD_TIME: &str = "{tr111}:good_time";
/// The last revision number of a binding ([`tr111_core::acs::Stamp::revision`]).
pub(super) const REVISION: &str = "{tr111}:revision";
/// Sequence number of the last change.
pub(super) const SEQUENCE: &str = "{tr111}:sequence";
/// Stream of changed names. The id of an entry is the sequence number of the change. The current values are in the
/// hashes.
pub(super) const CHANGES: &str = "{tr111}:changes";
/// Sets of accepted signed requests, in two generations.
pub(super) const SIGNED_RECENT: &str = "{tr111}:signed";
pub(super) const SIGNED_OLDER: &str = "{tr111}:signed_older";
/// Random text. It is missing or different after the database was lost.
pub(super) const EPOCH: &str = "{tr111}:epoch";
/// Identifier of the key that encrypts the passwords.
pub(super) const KEY: &str = "{tr111}:key";

/// Field of an entry in [`CHANGES`]: the name of a changed CPE.
pub(super) const CPE: &str = "c";
/// Field of an entry in [`CHANGES`]: the key of a changed association.
pub(super) const ASSOCIATION: &str = "a";
/// Field of an entry in [`CHANGES`]: the name of a CPE whose last `ts` was reset. An empty name means all CPEs.
pub(super) const TIMESTAMP: &str = "t";
/// Kind of a change of [`GOOD_TIME`]. It is not written to the stream.
pub(super) const TIME: &str = "g";
/// Field of each entry in [`CHANGES`]: random bytes. They tell changes with the same sequence number apart, after a
/// loss.
pub(super) const TOKEN: &str = "x";

/// Maximum entries of [`CHANGES`], approximately. A server that missed more reads all records again.
pub(super) const REMEMBERED: usize = 1 << 18;

/// Writes values that have not changed since the writer read them. Arguments: [`REMEMBERED`], a [`TOKEN`], then for
/// each change kind, name, value before and value after; an empty value means none. Returns the names of CPEs that
/// another server changed in between. A timestamp is only increased or removed.
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

/// Reserves a `ts` for each CPE (T-54). Arguments: the current time, then for each CPE its name and the last `ts` that
/// the calling server knows of, or -1.
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

/// Remembers signed requests (T-67). Returns 1 for each that was remembered before, else 0. Arguments: the size of a
/// generation, then the requests. A full recent generation replaces the older one.
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
