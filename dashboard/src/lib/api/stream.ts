import { readFrame } from "./frames";
import type { Channel, StreamUpdate } from "./types";

export type StreamState = "connecting" | "live" | "reconnecting" | "stopped";

export interface StreamStatus {
  state: StreamState;
  reconnects: number;
}

export interface Subscription {
  channels: readonly Channel[];
  symbols: readonly string[];
}

/** The part of `WebSocket` that the client uses. */
export interface Socket {
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: (() => void) | null;
  onerror: (() => void) | null;
  send(text: string): void;
  close(): void;
}

export interface StreamDeps {
  connect: () => Socket;
  onUpdate: (update: StreamUpdate, snapshot: boolean) => void;
  onStatus: (status: StreamStatus) => void;
  onError: (code: string, message: string) => void;
  /** Called when a lost connection stands again: what was missed must be fetched. */
  onResumed: () => void;
  random?: () => number;
}

const BASE_MS = 400;
const MAX_MS = 10_000;
const PING_MS = 10_000;
const SILENCE_MS = 20_000;

/** Delay before attempt `n` (0, 1, …): exponential, capped, with full jitter above a quarter. */
export function backoffMs(attempt: number, random: () => number): number {
  const ceiling = Math.min(MAX_MS, BASE_MS * 2 ** Math.min(attempt, 10));
  return ceiling * (0.25 + 0.75 * random());
}

/**
 * Keeps one socket to `/v1/stream` alive: reconnects with back-off, subscribes again, and drops
 * what is not newer than what it has. It holds no updates: each goes to `onUpdate` at once.
 */
export class StreamClient {
  private socket: Socket | null = null;
  private wanted: readonly Subscription[] = [];
  private seen = new Map<string, number>();
  private attempt = 0;
  private status: StreamStatus = { state: "stopped", reconnects: 0 };
  private retry: ReturnType<typeof setTimeout> | undefined;
  private watch: ReturnType<typeof setInterval> | undefined;
  private heardAt = 0;
  private lastSeq: number | null = null;
  private everLive = false;

  constructor(private readonly deps: StreamDeps) {}

  start(): void {
    if (this.socket || this.retry) return;
    this.open();
  }

  stop(): void {
    clearTimeout(this.retry);
    this.retry = undefined;
    this.drop();
    this.report("stopped");
  }

  /** Replaces what is subscribed; the socket is told the difference. */
  subscribe(wanted: readonly Subscription[]): void {
    const before = this.wanted;
    this.wanted = wanted;
    if (this.status.state !== "live") return;
    const same = (a: Subscription, b: Subscription) => JSON.stringify(a) === JSON.stringify(b);
    for (const old of before) {
      if (!wanted.some((now) => same(now, old))) this.send({ action: "unsubscribe", ...old });
    }
    for (const now of wanted) {
      if (!before.some((old) => same(old, now))) this.send({ action: "subscribe", ...now });
    }
  }

  /** Tries at once when a retry is pending: the network is back, or the page is looked at again. */
  hurry(): void {
    if (!this.retry) return;
    clearTimeout(this.retry);
    this.retry = undefined;
    this.open();
  }

  private open(): void {
    this.report(this.everLive ? "reconnecting" : "connecting");
    const socket = this.deps.connect();
    this.socket = socket;
    socket.onopen = () => this.opened();
    socket.onmessage = (event) => this.received(event.data);
    socket.onclose = () => this.lost();
    socket.onerror = null;
  }

  private opened(): void {
    // Should a feed start anew and count from zero, its numbers still compare within a connection.
    this.seen.clear();
    this.attempt = 0;
    this.heardAt = Date.now();
    this.watch = setInterval(() => this.beat(), PING_MS);
    const resumed = this.everLive;
    this.everLive = true;
    this.report("live", this.status.reconnects + (resumed ? 1 : 0));
    const from = resumed && this.lastSeq !== null ? { after_seq: this.lastSeq } : {};
    for (const now of this.wanted) this.send({ action: "subscribe", ...now, ...from });
    if (resumed) this.deps.onResumed();
  }

  private received(data: unknown): void {
    this.heardAt = Date.now();
    if (typeof data !== "string") return;
    const frame = readFrame(data);
    if (frame.kind === "error") this.deps.onError(frame.code, frame.message);
    if (frame.kind === "update") this.deliver(frame.update, frame.snapshot);
  }

  private deliver(update: StreamUpdate, snapshot: boolean): void {
    if (typeof update.seq === "number") {
      const key = `${update.channel}:${update.symbol ?? ""}`;
      const last = this.seen.get(key);
      if (last !== undefined && update.seq <= last) return;
      this.seen.set(key, update.seq);
      this.lastSeq = Math.max(this.lastSeq ?? 0, update.seq);
    }
    this.deps.onUpdate(update, snapshot);
  }

  private beat(): void {
    // A peer that vanished without a FIN looks open for minutes: silence closes it.
    if (Date.now() - this.heardAt > SILENCE_MS) this.lost();
    else this.send({ action: "ping" });
  }

  private lost(): void {
    this.drop();
    if (this.retry || this.status.state === "stopped") return;
    this.report(this.everLive ? "reconnecting" : "connecting");
    const delay = backoffMs(this.attempt++, this.deps.random ?? Math.random);
    this.retry = setTimeout(() => {
      this.retry = undefined;
      this.open();
    }, delay);
  }

  private drop(): void {
    clearInterval(this.watch);
    const socket = this.socket;
    this.socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
    socket.close();
  }

  private send(message: object): void {
    this.socket?.send(JSON.stringify(message));
  }

  private report(state: StreamState, reconnects = this.status.reconnects): void {
    if (state === this.status.state && reconnects === this.status.reconnects) return;
    this.status = { state, reconnects };
    this.deps.onStatus(this.status);
  }
}
