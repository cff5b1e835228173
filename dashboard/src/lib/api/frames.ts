import type { Channel, StreamUpdate } from "./types";

const CHANNELS: ReadonlySet<string> = new Set<Channel>([
  "trades",
  "quotes",
  "bars",
  "rollups",
  "features",
  "provisional",
  "signals",
  "stats",
  "anomalies",
  "fills",
  "alerts",
  "system",
]);

/** What one frame of the socket holds. */
export type Frame =
  | { kind: "update"; update: StreamUpdate; snapshot: boolean }
  | { kind: "error"; code: string; message: string }
  | { kind: "other" };

function isUpdate(value: unknown): value is StreamUpdate {
  if (value === null || typeof value !== "object") return false;
  const { channel, data } = value as Record<string, unknown>;
  return (
    typeof channel === "string" &&
    CHANNELS.has(channel) &&
    data !== null &&
    typeof data === "object"
  );
}

/** Reads the text of a frame; one that nobody can read is an error frame, never an exception. */
export function readFrame(text: string): Frame {
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(text);
  } catch {
    return { kind: "error", code: "bad_frame", message: "The stream sent something unreadable." };
  }
  if (value === null || typeof value !== "object") return { kind: "other" };
  if (value.channel === "error") {
    return {
      kind: "error",
      code: String(value.code ?? "error"),
      message: String(value.message ?? ""),
    };
  }
  if (!isUpdate(value)) return { kind: "other" };
  return {
    kind: "update",
    update: value,
    snapshot: "snapshot" in value && value.snapshot === true,
  };
}
