import type { Ledger, StageNumbers } from "@/lib/api/types";

/** One number of a stage; `bad` where any at all is a loss or a failure. */
export interface StageRow {
  label: string;
  value: number | null;
  bad?: boolean;
  title?: string;
}

export interface Stage {
  name: string;
  about: string;
  /** Null: it does not answer. */
  rows: readonly StageRow[] | null;
}

type Spec = [key: string, label: string, options?: { bad?: boolean; title?: string }];

const PRODUCER: readonly Spec[] = [
  ["received", "Received", { title: "Messages off the wire" }],
  ["acked", "Sent", { title: "Messages that Kinesis has acknowledged" }],
  ["queued", "Waiting", { title: "Received, not acknowledged yet" }],
  ["spilled", "On disk", { title: "Of those that wait, in the journal" }],
  ["backfilled", "Backfilled", { title: "Fetched over REST after an interruption" }],
  ["malformed", "Malformed", { bad: true, title: "Frames that nobody could read" }],
  ["reconnects", "Reconnects"],
  ["gaps", "Gaps", { title: "Declared interruptions" }],
];

const ARCHIVE: readonly Spec[] = [
  ["stored", "Stored", { title: "Messages in the lake" }],
  ["duplicates", "Duplicates", { title: "Copies that were sent again, and dropped" }],
  ["quarantined", "Quarantined", { title: "Messages that nobody may use, kept apart" }],
  ["holes", "Holes", { bad: true, title: "Holes in the numbering of records: losses" }],
  ["gaps", "Gaps"],
  ["dirty", "To rebuild", { title: "Bars that a late or corrected trade touched" }],
];

const SIGNALS: readonly Spec[] = [
  ["bars", "Bars", { title: "Closed bars that were decided on" }],
  ["signals", "Signals"],
  ["unavailable", "No answer", { bad: true, title: "Decisions that the policy did not answer" }],
  ["rollups", "Roll-ups"],
  ["anomalies", "Anomalies"],
  ["late_trades", "Late trades"],
  ["stand_ins", "Stand-ins", { title: "Bars of our own where the vendor's did not come" }],
  ["mismatches", "Differing bars", { title: "Our own bar and the vendor's disagree" }],
];

function rowsOf(numbers: StageNumbers | null | undefined, specs: readonly Spec[]) {
  if (!numbers) return null;
  return specs
    .filter(([key]) => key in numbers)
    .map(([key, label, options]) => {
      const value = numbers[key];
      return { label, value: typeof value === "number" ? value : null, ...options };
    });
}

/** The stages that a message goes through, with what each counts. */
export function stagesOf(ledger: Ledger): Stage[] {
  const { producer, archive, signals } = ledger.stages ?? {};
  return [
    { name: "Producer", about: "wire to Kinesis", rows: rowsOf(producer, PRODUCER) },
    { name: "Archive", about: "Kinesis to the lake", rows: rowsOf(archive, ARCHIVE) },
    { name: "Signals", about: "bars to decisions", rows: rowsOf(signals, SIGNALS) },
  ];
}

/** One place where received messages are, of all places. */
export interface Part {
  label: string;
  value: number;
  tone: "up" | "accent" | "warn" | "down";
}

/**
 * Where the received messages are: the parts add up to `received`, and `balanced` says so. Null
 * while a stage does not answer.
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
