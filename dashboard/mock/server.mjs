/** Serves `out/` with a made-up API and stream: `npm run mock [port]`. MOCK_EMPTY=1 knows nothing. */
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { WebSocketServer } from "ws";
import { alerts, fills, gaps, known, stats } from "./derived.mjs";
import { Market } from "./market.mjs";

const root = new URL("../out/", import.meta.url).pathname;
const port = Number(process.argv[2] ?? 3100);
const empty = process.env.MOCK_EMPTY === "1";
const market = new Market();
const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".woff2": "font/woff2",
};
const WINDOWS = { "1m": 1, "5m": 5, "15m": 15, "1h": 60, "1d": 1440 };

function rollUp(bars, minutes) {
  const byStart = new Map();
  for (const bar of bars) {
    const start = Math.floor(Date.parse(bar.event_time) / (minutes * 60_000)) * minutes * 60_000;
    const there = byStart.get(start);
    byStart.set(start, {
      ...bar,
      event_time: new Date(start).toISOString(),
      open: there?.open ?? bar.open,
      high: Math.max(there?.high ?? bar.high, bar.high),
      low: Math.min(there?.low ?? bar.low, bar.low),
      volume: (there?.volume ?? 0) + bar.volume,
    });
  }
  return [...byStart.values()];
}

function askSignal(symbol) {
  const signal = market.signals.get(symbol)?.at(-1);
  if (!signal) return null;
  return {
    ...signal,
    data_age_ms: Math.max(0, market.now() - Date.parse(signal.event_time) - 60_000),
  };
}

function answer(request, url, body) {
  const [, , what, symbol] = url.pathname.split("/");
  if (symbol && !market.symbols.includes(symbol)) return null;
  const limit = Number(url.searchParams.get("limit") ?? 100);
  if (what === "symbols") return { items: market.symbols.map((s) => ({ symbol: s })), next: null };
  if (what === "ledger") return market.ledger();
  if (what === "system")
    return { ...market.system(), links: { ray: "/", spark: "/", docs: "/docs" } };
  if (empty)
    return what === "signals" && request.method === "POST" ? null : { items: [], next: null };
  if (what === "bars") {
    const bars = rollUp(
      market.bars.get(symbol),
      WINDOWS[url.searchParams.get("window") ?? "1m"] ?? 1,
    );
    return { items: bars.slice(-limit).reverse(), next: null };
  }
  if (what === "stats") {
    const rows = market.bars.get(symbol).slice(0, -1);
    return { items: rows.length ? [stats(rows)] : [], next: null };
  }
  if (what === "indicators") return { items: [], next: null };
  if (what === "anomalies")
    return { items: market.anomalies.slice(0, limit).map(known), next: null };
  if (what === "fills") return fills(market.signals);
  if (what === "alerts") return alerts();
  if (what === "gaps") {
    const cut = Date.parse(market.bars.get("AAPL")[60].event_time);
    return gaps(market.symbols, cut + 20_000, cut + 260_000);
  }
  if (what === "signals" && request.method === "POST") return askSignal(body.symbol);
  if (what === "signals")
    return { items: market.signals.get(symbol).slice(-limit).reverse(), next: null };
  return null;
}

function file(path) {
  const asked = join(root, normalize(decodeURIComponent(path)));
  const found = [asked, join(asked, "index.html")].find(
    (p) => existsSync(p) && statSync(p).isFile(),
  );
  return { path: found ?? join(root, "404.html"), status: found ? 200 : 404 };
}

async function handle(request, response) {
  const url = new URL(request.url, "http://localhost");
  if (!url.pathname.startsWith("/v1/")) {
    const { path, status } = file(url.pathname);
    response.writeHead(status, {
      "content-type": TYPES[extname(path)] ?? "application/octet-stream",
    });
    createReadStream(path).pipe(response);
    return;
  }
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const result = answer(
    request,
    url,
    chunks.length ? JSON.parse(Buffer.concat(chunks).toString()) : {},
  );
  response.writeHead(result ? 200 : 404, { "content-type": "application/json" });
  const refusal = {
    error: { code: "unknown", message: "There is nothing of this name.", detail: null },
  };
  response.end(JSON.stringify(result ?? refusal));
}

const server = createServer(handle);
const sockets = new WebSocketServer({ server, path: "/v1/stream" });
let seq = 0;

function send(socket, update, snapshot = false) {
  const wanted = socket.wants?.[update.channel];
  if (!wanted?.has("*") && !wanted?.has(update.symbol)) return;
  socket.send(
    JSON.stringify({ ...update, sent_at: new Date().toISOString(), ...(snapshot && { snapshot }) }),
  );
}

function publish(update) {
  seq += 1;
  for (const socket of sockets.clients) send(socket, { seq, ...update });
}

sockets.on("connection", (socket) => {
  socket.wants = {};
  socket.on("message", (text) => {
    const { action, channels = [], symbols = [] } = JSON.parse(text.toString());
    for (const channel of channels) {
      socket.wants[channel] ??= new Set();
      const set = socket.wants[channel];
      for (const symbol of symbols) action === "subscribe" ? set.add(symbol) : set.delete(symbol);
    }
    if (action !== "subscribe" || empty) return;
    for (const [symbol, data] of market.features) {
      if (channels.includes("features"))
        send(socket, { channel: "features", symbol, seq, event_time: data.event_time, data }, true);
    }
    for (const [symbol, signals] of market.signals) {
      const data = signals.at(-1);
      if (channels.includes("signals"))
        send(socket, { channel: "signals", symbol, seq, event_time: data.event_time, data }, true);
    }
  });
});

setInterval(
  () => publish({ channel: "system", symbol: "*", event_time: null, data: market.system() }),
  1000,
);
if (!empty) {
  setInterval(() => {
    for (const symbol of market.symbols) {
      if (Math.random() < 0.35)
        for (const update of market.tick(symbol)) publish({ symbol, ...update });
    }
  }, 120);
}
server.listen(port, "127.0.0.1", () => console.log(`mock on http://127.0.0.1:${port}`));
