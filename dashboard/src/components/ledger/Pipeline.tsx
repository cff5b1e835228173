"use client";

import { count, millis } from "@/lib/format";
import { useSystem } from "@/lib/market/hooks";
import { Stat } from "./Stat";

/** States of a part in which its numbers would be yesterday's: the state itself is shown. */
const DOWN = new Set(["failed", "stopped", "backing_off", "paused", "connecting"]);

function downState(state: string | null | undefined): string | null {
  return state && DOWN.has(state) ? state.replace("_", " ") : null;
}

/** How fast the parts run: producer, archive, signals, feed. */
export function Pipeline() {
  const system = useSystem();
  const { producer, streaming, archive, signals, latency_ms } = system ?? {};
  const rate = producer?.messages_per_s;
  const off = downState(producer?.state);
  const jobOff = downState(streaming?.state);
  const batch = (ms: number | null | undefined) => system && (jobOff ?? millis(ms));
  return (
    <section
      aria-label="Pipeline"
      className="bg-surface px-4 py-3 lg:flex lg:items-center lg:py-2 xl:justify-end xl:py-3"
    >
      <dl className="grid grid-cols-3 gap-x-4 gap-y-2.5 sm:grid-cols-5 lg:flex lg:gap-7">
        <Stat
          label="Producer"
          value={system && (off ?? (rate == null ? "–" : `${count(rate)} msg/s`))}
          tone={off ? "text-down" : undefined}
          title={producer?.error ?? "Messages per second from the wire to Kinesis"}
        />
        <Stat
          label="Put p50"
          value={system && millis(producer?.put_ms_p50)}
          title="Time of one put to Kinesis"
        />
        <Stat
          label="Archive batch"
          value={batch(archive?.last_batch_ms)}
          tone={jobOff ? "text-down" : undefined}
          title={streaming?.error ?? "Last batch into the lake"}
        />
        <Stat
          label="Signals batch"
          value={batch(signals?.last_batch_ms)}
          tone={jobOff ? "text-down" : undefined}
          title={streaming?.error ?? "Last batch of bars, features and decisions"}
        />
        <Stat
          label="Feed p50"
          value={system && millis(latency_ms?.feed_p50)}
          title="From receipt off the wire to the feed"
        />
      </dl>
    </section>
  );
}
