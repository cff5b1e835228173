import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { readFrame } from "./frames";
import { backoffMs, type Socket, StreamClient, type StreamStatus } from "./stream";

class FakeSocket implements Socket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: (() => void) | null = null;
  onerror: (() => void) | null = null;
  sent: Record<string, unknown>[] = [];
  closed = false;
  send(text: string) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.closed = true;
  }
}

const trade = (seq: number, more = {}) =>
  JSON.stringify({
    channel: "trades",
    symbol: "SPY",
    seq,
    event_time: null,
    data: { price: 1, size: 1 },
    ...more,
  });

function make() {
  const sockets: FakeSocket[] = [];
  const seen: [number, boolean][] = [];
  const states: StreamStatus[] = [];
  const errors: string[] = [];
  const onResumed = vi.fn();
  const client = new StreamClient({
    connect: () => {
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket;
    },
    onUpdate: (update, snapshot) => seen.push([update.seq, snapshot]),
    onStatus: (status) => states.push(status),
    onError: (code) => errors.push(code),
    onResumed,
    random: () => 1,
  });
  return { client, sockets, seen, states, errors, onResumed };
}

const ALL = { channels: ["trades"], symbols: ["*"] } as const;
const ONE = { channels: ["quotes"], symbols: ["SPY"] } as const;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("StreamClient", () => {
  test("what is subscribed before the socket opens is sent when it does", () => {
    const { client, sockets } = make();
    client.subscribe([ALL]);
    client.start();
    expect(sockets[0]?.sent).toEqual([]);
    sockets[0]?.onopen?.();
    expect(sockets[0]?.sent).toEqual([{ action: "subscribe", ...ALL }]);
  });

  test("a change of subscription sends only the difference", () => {
    const { client, sockets } = make();
    client.subscribe([ALL, ONE]);
    client.start();
    sockets[0]?.onopen?.();
    const next = { channels: ["quotes"], symbols: ["IWM"] } as const;
    client.subscribe([ALL, next]);
    expect(sockets[0]?.sent.slice(2)).toEqual([
      { action: "unsubscribe", ...ONE },
      { action: "subscribe", ...next },
    ]);
  });

  test("a repeated or older sequence number is dropped", () => {
    const { client, sockets, seen } = make();
    client.start();
    sockets[0]?.onopen?.();
    for (const seq of [5, 5, 4, 6]) sockets[0]?.onmessage?.({ data: trade(seq) });
    expect(seen).toEqual([
      [5, false],
      [6, false],
    ]);
  });

  test("a lost connection is tried again with growing delay and resumes where it was", () => {
    const { client, sockets, states, onResumed } = make();
    client.subscribe([ALL]);
    client.start();
    sockets[0]?.onopen?.();
    sockets[0]?.onmessage?.({ data: trade(7) });
    sockets[0]?.onclose?.();
    expect(states.at(-1)).toEqual({ state: "reconnecting", reconnects: 0 });
    vi.advanceTimersByTime(400);
    sockets[1]?.onclose?.();
    vi.advanceTimersByTime(799);
    expect(sockets).toHaveLength(2);
    vi.advanceTimersByTime(1);
    sockets[2]?.onopen?.();
    expect(sockets[2]?.sent).toEqual([{ action: "subscribe", ...ALL, after_seq: 7 }]);
    expect(states.at(-1)).toEqual({ state: "live", reconnects: 1 });
    expect(onResumed).toHaveBeenCalledTimes(1);
  });

  test("a feed that counts anew after a reconnect is heard", () => {
    const { client, sockets, seen } = make();
    client.start();
    sockets[0]?.onopen?.();
    sockets[0]?.onmessage?.({ data: trade(900) });
    sockets[0]?.onclose?.();
    vi.advanceTimersByTime(400);
    sockets[1]?.onopen?.();
    sockets[1]?.onmessage?.({ data: trade(1, { snapshot: true }) });
    expect(seen.at(-1)).toEqual([1, true]);
  });

  test("a silent connection is given up, one that speaks is not", () => {
    const { client, sockets } = make();
    client.start();
    sockets[0]?.onopen?.();
    vi.advanceTimersByTime(15_000);
    sockets[0]?.onmessage?.({ data: '{"channel":"pong"}' });
    vi.advanceTimersByTime(15_000);
    expect(sockets[0]?.closed).toBe(false);
    vi.advanceTimersByTime(10_000);
    expect(sockets[0]?.closed).toBe(true);
  });

  test("a stopped client opens no socket and a hurried one opens at once", () => {
    const { client, sockets } = make();
    client.start();
    sockets[0]?.onclose?.();
    client.hurry();
    expect(sockets).toHaveLength(2);
    client.stop();
    vi.advanceTimersByTime(60_000);
    expect(sockets).toHaveLength(2);
  });

  test("an error frame and an unreadable frame are reported", () => {
    const { client, sockets, errors } = make();
    client.start();
    sockets[0]?.onopen?.();
    sockets[0]?.onmessage?.({ data: '{"channel":"error","code":"unknown_symbol","message":"?"}' });
    sockets[0]?.onmessage?.({ data: "{" });
    expect(errors).toEqual(["unknown_symbol", "bad_frame"]);
  });
});

describe("readFrame", () => {
  test("acknowledgements and unknown channels are passed over", () => {
    for (const text of [
      '{"channel":"subscribed"}',
      '{"channel":"portfolio","data":{}}',
      "null",
      "[]",
      "3",
    ]) {
      expect(readFrame(text)).toEqual({ kind: "other" });
    }
  });
});

test("back-off doubles to its ceiling and jitters above a quarter", () => {
  expect([0, 1, 2].map((n) => backoffMs(n, () => 1))).toEqual([400, 800, 1600]);
  expect(backoffMs(99, () => 1)).toBe(10_000);
  expect(backoffMs(0, () => 0)).toBe(100);
});
