// Sequence numbers and hash keys by BigInt, for kinesalite's BigNumber takes a seventh of its CPU.
//
// Only what each record of a put or a read needs; whatever else a caller gives goes to kinesalite's
// own functions, errors too. Until kinesalite itself uses BigInt.
"use strict";

const { createHash } = require("node:crypto");

const db = require("kinesalite/db");

const DIGITS = /^[0-9]{56}$/; // those of version 2, which is all that it makes
const LATEST = 16_025_175_000; // seconds; a later shard is an error
const { parseSequence, stringifySequence } = db;

function parse(text) {
  if (typeof text === "string" && DIGITS.test(text)) {
    const digits = BigInt(text).toString(16);
    // Digits: version 1, shard's time 9, shard 1, index 16, a byte 2, time 9, shard 8, version 1.
    const created = Number.parseInt(digits.slice(1, 10), 16);
    const version2 = digits.length === 47 && digits[0] === "2" && digits[46] === "2";
    if (version2 && created < LATEST && digits[11] < "8" && digits[38] < "8") {
      return {
        shardCreateTime: created * 1000,
        seqIx: BigInt(`0x${digits.slice(11, 27)}`).toString(),
        byte1: digits.slice(27, 29),
        seqTime: Number.parseInt(digits.slice(29, 38), 16) * 1000,
        shardIx: Number.parseInt(digits.slice(38, 46), 16),
        version: 2,
      };
    }
  }
  return parseSequence(text);
}

const hex = (value, width) => value.toString(16).padStart(width, "0").slice(-width);

function stringify(parts) {
  const { shardCreateTime, seqTime, byte1, version } = parts;
  const shardIx = parts.shardIx || 0;
  if ((version ?? 2) !== 2 || byte1 || shardIx < 0) return stringifySequence(parts);
  const created = hex(Math.floor(shardCreateTime / 1000), 9);
  const at = hex(Math.floor((seqTime || shardCreateTime) / 1000), 9);
  const digits = `2${created}${hex(shardIx, 1)}${hex(BigInt(parts.seqIx || 0), 16)}00${at}${hex(shardIx, 8)}2`;
  return BigInt(`0x${digits}`).toString();
}

const bounds = new Map(); // of shards' ranges, which are few

function bound(text) {
  let value = bounds.get(text);
  if (value === undefined) {
    if (bounds.size > 1000) bounds.clear();
    value = BigInt(text);
    bounds.set(text, value);
  }
  return value;
}

class HashKey {
  constructor(value) {
    this.value = value;
  }

  // What kinesalite asks of it: where it lies to the end of a range.
  comparedTo(text) {
    const other = bound(text);
    return this.value < other ? -1 : Number(this.value > other);
  }
}

function hashKey(partitionKey) {
  return new HashKey(BigInt(`0x${createHash("md5").update(partitionKey, "utf8").digest("hex")}`));
}

exports.install = () => {
  db.parseSequence = parse;
  db.stringifySequence = stringify;
  db.partitionKeyToHashKey = hashKey;
};
