import type { Alert, SystemData } from "@/lib/api/types";

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

/** An alert that stands, or one that is over. */
export function standing(alerts: readonly Alert[]): { now: Alert[]; over: Alert[] } {
  return {
    now: alerts.filter(({ ended_at }) => ended_at === null),
    over: alerts.filter(({ ended_at }) => ended_at !== null),
  };
}
