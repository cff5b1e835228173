"use client";

import { count, millis } from "@/lib/format";
import { useSystem } from "@/lib/market/hooks";
import { Stat } from "./Stat";

const PUT_OFF = new Set(["failed", "stopped", "backing_off"]);

/** How fast the parts run: producer, archive, signals, feed. */
export function Pipeline() {
  const system = useSystem();
  const state = system?.producer?.state;
  const rate = system?.producer?.messages_per_s;
  const off = state !== undefined && PUT_OFF.has(state);
  return (
    <section
      aria-label="Pipeline"
      className="bg-surface px-4 py-3 lg:flex lg:items-center lg:justify-end"
    >
      <dl className="grid grid-cols-3 gap-x-6 gap-y-2.5 sm:grid-cols-4 lg:flex lg:gap-7">
        <Stat
          label="Producer"
          value={
            off ? state.replace("_", " ") : system && (rate == null ? "–" : `${count(rate)} msg/s`)
          }
          tone={off ? "text-down" : undefined}
          title="Messages per second from the wire to Kinesis"
        />
        <Stat
          label="Put p50"
          value={system && millis(system.producer?.put_ms_p50)}
          title="Time of one put to Kinesis"
        />
        <Stat
          label="Archive batch"
          value={system && millis(system.archive?.last_batch_ms)}
          title="Last batch into the lake"
        />
        <Stat
          label="Signals batch"
          value={system && millis(system.signals?.last_batch_ms)}
          title="Last batch of bars, features and decisions"
        />
        <Stat
          label="Feed p50"
          value={system && millis(system.latency_ms?.feed_p50)}
          title="From receipt off the wire to the feed"
        />
      </dl>
    </section>
  );
}
