import type {
  ApiBar,
  ApiErrorBody,
  BarPage,
  BarWindow,
  Ledger,
  SignalAnswer,
  SignalPage,
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

/** Bars of a symbol, oldest first. */
export async function getBars(
  symbol: string,
  window: BarWindow,
  limit: number,
  signal?: AbortSignal,
): Promise<ApiBar[]> {
  const query = new URLSearchParams({ window, limit: String(limit) });
  const path = `/v1/bars/${encodeURIComponent(symbol)}?${query}`;
  return (await request<BarPage>(path, { signal })).items.reverse();
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
