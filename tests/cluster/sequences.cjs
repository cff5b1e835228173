// Compares sequence.cjs with kinesalite's own functions: cases as JSON in, those that differ out.
"use strict";

const folder = process.argv[2];
const db = require(require.resolve("kinesalite/db", { paths: [folder] }));
const own = { ...db };
require(`${folder}/sequence.cjs`).install();

const outcome = (call) => {
  try {
    return JSON.stringify(call());
  } catch {
    return "an error";
  }
};

const questions = {
  parse: (from, text) => from.parseSequence(text),
  stringify: (from, parts) => from.stringifySequence(parts),
  place: (from, [key, ...bounds]) =>
    bounds.map((b) => from.partitionKeyToHashKey(key).comparedTo(b)),
};

const cases = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const differing = cases.filter(([what, given]) => {
  const [theirs, ours] = [own, db].map((from) => outcome(() => questions[what](from, given)));
  return theirs !== ours;
});
console.log(JSON.stringify(differing));
