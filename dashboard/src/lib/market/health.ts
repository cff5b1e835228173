import type { Alarm, SystemData } from "@/lib/api/types";

export type Level = "good" | "coming" | "bad";

export interface PartHealth {
  name: string;
  state: string;
  level: Level;
  detail: string | null;
}

const GOOD = new Set(["streaming", "running", "idle"]);
const COMING = new Set(["connecting", "authenticating", "starting", "paused"]);

function part(name: string, state: string | null | undefined, detail?: unknown): PartHealth {
  const level = !state ? "bad" : GOOD.has(state) ? "good" : COMING.has(state) ? "coming" : "bad";
  return {
    name,
    state: state ? state.replaceAll("_", " ") : "no answer",
    level,
    detail: typeof detail === "string" && detail ? detail : null,
  };
}

/** The parts of the platform and how each fares, in the order that data flows through them. */
export function healthOf(system: SystemData): PartHealth[] {
  const numbers = system.ledger?.stages?.producer;
  const streams = Object.entries(system.feed?.streams ?? {});
  return [
    part("Producer", system.producer?.state, system.producer?.error ?? numbers?.degraded),
    part("Spark job", system.streaming?.state, system.streaming?.error),
    ...streams.map(([name, state]) => part(`Feed of ${name}`, state)),
  ];
}

/** The alarms that are on, whichever stage raised them; the oldest first. */
export function alarmsOf(system: SystemData): Alarm[] {
  const { producer, archive, signals } = system.ledger?.stages ?? {};
  return [producer, archive, signals]
    .flatMap((stage) => (Array.isArray(stage?.alarms) ? stage.alarms : []))
    .filter((alarm): alarm is Alarm => typeof alarm?.alarm === "string")
    .sort((a, b) => a.since_wall_ns - b.since_wall_ns);
}
