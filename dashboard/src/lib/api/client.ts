import type {
  Alert,
  AlertPage,
  Anomaly,
  AnomalyPage,
  ApiBar,
  ApiErrorBody,
  BarPage,
  BarWindow,
  Fill,
  FillPage,
  GapPage,
  GapRow,
  IndicatorPage,
  IndicatorRow,
  Ledger,
  SignalAnswer,
  SignalPage,
  StatsData,
  StatsPage,
  SymbolPage,
  SystemData,
} from "./types";

/** A refusal of the gateway, or that there was no answer (`status` 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

async function request<T>(path: string, init?: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, {
      ...init,
      headers: { accept: "application/json", ...init?.headers },
    });
  } catch (cause) {
    if (cause instanceof DOMException && cause.name === "AbortError") throw cause;
    throw new ApiError(0, "unreachable", "The gateway does not answer.");
  }
  const body: unknown = await response.json().catch(() => null);
  if (response.ok) return body as T;
  const error = (body as ApiErrorBody | null)?.error;
  throw new ApiError(
    response.status,
    error?.code ?? `http_${response.status}`,
    error?.message ?? `The gateway answered ${response.status}.`,
  );
}

export async function getSymbols(signal?: AbortSignal): Promise<string[]> {
  const page = await request<SymbolPage>("/v1/symbols", { signal });
  return page.items.map((row) => row.symbol);
}

/** Rows that one answer holds at most. */
const PAGE = 1000;

/** Bars of a symbol, oldest first; as many pages as that takes. */
export async function getBars(
  symbol: string,
  window: BarWindow,
  limit: number,
  signal?: AbortSignal,
): Promise<ApiBar[]> {
  const newest: ApiBar[] = [];
  let next: string | null = null;
  do {
    const query = new URLSearchParams({ window, limit: String(Math.min(PAGE, limit)) });
    if (next) query.set("next", next);
    const path = `/v1/bars/${encodeURIComponent(symbol)}?${query}`;
    const page: BarPage = await request<BarPage>(path, { signal });
    newest.push(...page.items);
    next = page.next;
  } while (next && newest.length < limit);
  return newest.reverse();
}

/** Indicators at closed minute bars, newest first. */
export async function getIndicators(
  symbol: string,
  limit: number,
  signal?: AbortSignal,
): Promise<IndicatorRow[]> {
  const path = `/v1/indicators/${encodeURIComponent(symbol)}?limit=${limit}`;
  return (await request<IndicatorPage>(path, { signal })).items;
}

/** The newest running statistics of a symbol; null before its first bar. */
export async function getStats(symbol: string, signal?: AbortSignal): Promise<StatsData | null> {
  const path = `/v1/stats/${encodeURIComponent(symbol)}?limit=1`;
  return (await request<StatsPage>(path, { signal })).items[0] ?? null;
}

/** The newest anomalies of all symbols, newest first. */
export async function getAnomalies(limit: number, signal?: AbortSignal): Promise<Anomaly[]> {
  return (await request<AnomalyPage>(`/v1/anomalies?limit=${limit}`, { signal })).items;
}

/** The newest paper fills of all symbols and models, newest first. */
export async function getFills(limit: number, signal?: AbortSignal): Promise<Fill[]> {
  return (await request<FillPage>(`/v1/fills?limit=${limit}`, { signal })).items;
}

/** What was wrong with the platform, and what is, newest first. */
export async function getAlerts(limit: number, signal?: AbortSignal): Promise<Alert[]> {
  return (await request<AlertPage>(`/v1/alerts?limit=${limit}`, { signal })).items;
}

/** The newest declared gaps of all symbols, newest first. */
export async function getGaps(limit: number, signal?: AbortSignal): Promise<GapRow[]> {
  return (await request<GapPage>(`/v1/gaps?limit=${limit}`, { signal })).items;
}

/** Signals of a symbol, newest first. */
export async function getSignals(
  symbol: string,
  limit: number,
  signal?: AbortSignal,
): Promise<SignalAnswer[]> {
  const path = `/v1/signals/${encodeURIComponent(symbol)}?limit=${limit}`;
  return (await request<SignalPage>(path, { signal })).items;
}

/** Ask the policy about a symbol now. */
export function askSignal(symbol: string, signal?: AbortSignal): Promise<SignalAnswer> {
  return request("/v1/signals", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ symbol }),
    signal,
  });
}

export function getLedger(signal?: AbortSignal): Promise<Ledger> {
  return request("/v1/ledger", { signal });
}

export function getSystem(signal?: AbortSignal): Promise<SystemData> {
  return request("/v1/system", { signal });
}
