// Lets records expire, so that the store on disk is bounded.
//
// kinesalite deletes an old record only when somebody reads it, and its readers are at the tip.
// Here each shard is walked from its oldest record, every so often: what arrived before the
// retention goes. The newest of those stays, as the place behind which its readers continue: that
// it is gone tells a reader that something it had not read may be gone too. Sequence numbers go
// on; TRIM_HORIZON becomes the oldest record that is left.
"use strict";

const { once } = require("node:events");
const { promisify } = require("node:util");

const db = require("kinesalite/db");

const CHUNK = 500;

// What is being read. A read sees the store as it was when it began, and for its sake LevelDB keeps
// what was deleted since, for good if it compacts just then.
const reads = new Set();

function watchReads(store) {
  const getStreamDb = store.getStreamDb;
  const watched = new WeakSet();
  store.getStreamDb = (name) => {
    const streamDb = getStreamDb(name);
    if (!watched.has(streamDb)) {
      watched.add(streamDb);
      const createReadStream = streamDb.createReadStream.bind(streamDb);
      streamDb.createReadStream = (options) => {
        const read = createReadStream(options);
        reads.add(read);
        return read.once("close", () => reads.delete(read));
      };
    }
    return streamDb;
  };
}

// LevelDB frees the place of what was deleted when it compacts, which it does not hurry to, and at
// its lowest level only where something above overlaps it. So it brings everything down, and then
// once more, with a deletion above at each end: the file that holds both overlaps all between them.
async function compact(store, name, first, last) {
  await Promise.all([...reads].map((read) => once(read, "close")));
  const [from, to] = [first, last].map((key) => `!stream-${name}!${key}`);
  const compactRange = promisify(store.db.compactRange).bind(store.db);
  await compactRange(from, to);
  await store.db.batch([{ type: "del", key: from }, { type: "del", key: to }]);
  await compactRange(from, to);
}

async function trimShard(store, name, shardIx, beforeMs) {
  const streamDb = store.getStreamDb(name);
  const range = { gte: db.shardIxToHex(shardIx), lt: db.shardIxToHex(shardIx + 1) };
  let first, last, kept, chunk = [], count = 0;
  const flush = async () => {
    if (chunk.length) await streamDb.batch(chunk);
    count += chunk.length;
    chunk = [];
  };
  for await (const key of streamDb.createKeyStream(range)) {
    if (db.parseSequence(key.split("/")[1]).seqTime >= beforeMs) break;
    if (kept !== undefined) {
      first ??= kept;
      last = kept;
      chunk.push({ type: "del", key: kept });
    }
    kept = key;
    if (chunk.length >= CHUNK) await flush();
  }
  await flush();
  if (count && store.db.compactRange) await compact(store, name, first, last);
  return count;
}

async function trim(store, beforeMs) {
  const shards = [];
  for await (const { key: name, value: stream } of store.metaDb.createReadStream()) {
    stream.Shards.forEach((_, shardIx) => shards.push([name, shardIx]));
  }
  // No iterator may be open now: it is a snapshot, for whose sake compaction would keep it all.
  let count = 0;
  for (const [name, shardIx] of shards) {
    count += await trimShard(store, name, shardIx, beforeMs);
  }
  return count;
}

// Whoever comes back after a pause gets some time to read on before the first records go.
function install({ retentionMs, everyMs, graceMs }) {
  const create = db.create;
  db.create = (options) => {
    const store = create(options);
    watchReads(store);
    const next = (waitMs) => setTimeout(pass, waitMs).unref();
    const pass = async () => {
      try {
        const count = await trim(store, Date.now() - retentionMs);
        if (count) console.log("%s trimmed %d records", new Date().toISOString(), count);
      } catch (error) {
        console.error("not trimmed:", error); // the next pass tries again
      }
      next(everyMs);
    };
    next(graceMs);
    return store;
  };
}

module.exports = { install };
