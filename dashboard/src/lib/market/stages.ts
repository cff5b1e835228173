import type { Ledger, StageNumbers, StageRow } from "@/lib/api/types";

/** One stage of the way of a message, as a line of the table. */
export interface Stage {
  name: string;
  /** What it takes, and where that goes. */
  about: string;
  /** Its balance; null: it does not answer. */
  row: StageRow | null;
  /** What else it counted, in words; empty of nothing. */
  more: string[];
}

type Words = [key: string, one: string, many: string];

const STAGES: readonly { id: string; name: string; about: string; more: readonly Words[] }[] = [
  {
    id: "producer",
    name: "Producer",
    about: "off the wire, onto the stream",
    more: [
      ["backfilled", "backfilled", "backfilled"],
      ["spilled", "waits on disk", "wait on disk"],
      ["malformed", "malformed", "malformed"],
      ["reconnects", "reconnect", "reconnects"],
    ],
  },
  { id: "stream", name: "Stream", about: "from the producer to the archive", more: [] },
  {
    id: "archive",
    name: "Archive",
    about: "off the stream, into the lake; copies included",
    more: [["dirty", "bar to rebuild", "bars to rebuild"]],
  },
  {
    id: "signals",
    name: "Signals",
    about: "closed bars, and the decisions on them",
    more: [
      ["unavailable", "without an answer", "without an answer"],
      ["anomalies", "anomaly", "anomalies"],
      ["late_trades", "late trade", "late trades"],
      ["mismatches", "bar differs", "bars differ"],
    ],
  },
];

function wordsOf(numbers: StageNumbers | null | undefined, words: readonly Words[]): string[] {
  return words.flatMap(([key, one, many]) => {
    const value = numbers?.[key];
    if (typeof value !== "number" || value === 0) return [];
    return [`${value.toLocaleString("en-US")} ${value === 1 ? one : many}`];
  });
}

/** The stages that a message goes through, in order, with the balance of each. */
export function stagesOf(ledger: Ledger): Stage[] {
  const told = ledger.stages as Record<string, StageNumbers | null> | undefined;
  return STAGES.map(({ id, name, about, more }) => ({
    name,
    about,
    row: ledger.balance?.find(({ stage }) => stage === id) ?? null,
    more: wordsOf(told?.[id], more),
  }));
}

/** One place where received messages are, of all places. */
export interface Part {
  label: string;
  value: number;
  tone: "up" | "accent" | "warn" | "down";
}

/**
 * Where the received messages are, of the whole way: the parts add up to `received`, and it is
 * balanced when none of them is an imbalance. Null while a stage does not answer.
 */
export function balanceOf(
  ledger: Ledger,
): { received: number; parts: Part[]; balanced: boolean } | null {
  const { received, stored, quarantined, in_flight, imbalance } = ledger;
  if (received === null || stored === null || quarantined === null || in_flight === null)
    return null;
  const parts: Part[] = [
    { label: "Stored", value: stored, tone: "up" },
    { label: "In flight", value: in_flight, tone: "accent" },
    { label: "Quarantined", value: quarantined, tone: "warn" },
  ];
  if (imbalance) parts.push({ label: "Imbalance", value: imbalance, tone: "down" });
  const sum = parts.reduce((total, part) => total + part.value, 0);
  return { received, parts, balanced: !imbalance && sum === received };
}
