// Loaded before kinesalite.
//
// kinesalite throws when a client goes away in the middle of a request, and ends: one killed
// client would take the stream from everybody. A client that is gone is no error of the server;
// whatever else is, still ends it.
"use strict";

const GONE = new Set(["ECONNRESET", "EPIPE"]);

process.on("uncaughtException", (error) => {
  if (GONE.has(error.code)) return;
  console.error(error);
  process.exit(1);
});

// It listens on all interfaces, and has no option for another address.
const net = require("node:net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  const host = typeof rest[0] === "string" ? [] : ["127.0.0.1"];
  return listen.call(this, port, ...host, ...rest);
};

require("./sequence.cjs").install();

const seconds = (name) => 1000 * Number(process.env[name] || 0);
const retentionMs = seconds("RAYTAPE_KINESIS_RETENTION_S");
if (retentionMs > 0) {
  require("./trim.cjs").install({
    retentionMs,
    everyMs: seconds("RAYTAPE_KINESIS_TRIM_EVERY_S") || 60_000,
    graceMs: Math.min(retentionMs, 600_000),
  });
}
